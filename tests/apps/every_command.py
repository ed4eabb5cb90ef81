"""Every command, with what it is asked in each situation; and the world that it is asked in."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
from persistq.admin.admin import app
from support.batches import fill, names, only
from support.cli import ok
from support.databases import SQLite
from support.generated import ROOT
from support.jobs import WORKER
from typer.main import get_command

import persistq
from persistq.batch import BatchReader
from persistq.beyond import by_drivers
from persistq.sharded import Entry
from persistq.sharded.serve import Drivers

LOOKING = "it only looks"


@dataclass(frozen=True)
class No:
    """A situation that a command cannot be in."""

    why: str


Cell = str | No


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one command is asked; ``{name}`` stands for a thing of the world."""

    #: It succeeds.
    ok: Cell
    #: It succeeds where there is no job, file or consumer.
    empty: Cell
    #: It names what is not there: 3.
    unknown: Cell
    #: It names what is not in a state for it: 4.
    wrong: Cell
    #: It changes something, so a read-only window refuses it: 4. Else such a window does what any other does.
    writes: bool = True
    #: The database is out of reach: 5. Without it, ``ok`` is asked.
    unreachable: Cell | None = None
    #: A read-only window. Without it, ``ok`` is asked.
    read_only: Cell | None = None
    #: What stdout holds when it succeeds; of a command with --json one document, whatever stands here.
    out: str = ""


def _looks(ok: Cell, empty: Cell, unknown: Cell, **more: Any) -> Row:
    return Row(ok=ok, empty=empty, unknown=unknown, wrong=No(LOOKING), writes=False, **more)


def _acts(ok: Cell, empty: Cell, unknown: Cell, wrong: Cell, **more: Any) -> Row:
    return Row(ok=ok, empty=empty, unknown=unknown, wrong=wrong, **more)


_ONE = No("it names one thing, which is not found then")
_LIST = No("what matches nothing is an empty answer")
_ANY = No("any name will do")
_TWICE = No("to do it twice is no mistake")
_USAGE = No("a file or folder that will not do is a mistake in usage")
_FOLDER = No("it reads a folder, and no database")
_PROGRAM = No("it becomes a program, which looks after that itself")
_PROCESSES = No("what it does to processes is in any state possible")

TABLE: dict[str, Row] = {
    "list-jobs": _looks("list-jobs", "list-jobs", _LIST),
    "show-job": _looks("show-job {done}", _ONE, "show-job 4711"),
    "explain": _looks("explain {done}", _ONE, "explain 4711"),
    "enqueue": _acts("enqueue item", "enqueue item", _ANY, No("a new job is in no state"), out=r"\d+\n"),
    "cancel": _acts("cancel {pending}", "cancel --all --yes", "cancel 4711", "cancel {done}"),
    "resubmit": _acts("resubmit {failed}", "resubmit --all --yes", "resubmit 4711", "resubmit {pending}"),
    "mark-failed": _acts("mark-failed {pending}", "mark-failed --all --yes", "mark-failed 4711", "mark-failed {done}"),
    "assign-job": _acts(
        "assign-job {pending} a", "assign-job --all --to a --yes", "assign-job 4711 a", "assign-job {done} a"
    ),
    "release": _acts("release {processing}", "release --all --yes", "release 4711", "release {pending}"),
    "edit-job": _acts(
        "edit-job {pending} --priority 1", "edit-job --all --priority 1 --yes", "edit-job 4711 --priority 1",
        "edit-job {processing} --priority 1",
    ),
    "delete-job": _acts(
        "delete-job {done} --yes", "delete-job --all --yes", "delete-job 4711 --yes", "delete-job {processing} --yes"
    ),
    "purge": _acts(
        "purge --older-than 0 --yes", "purge --older-than 0 --yes", _LIST,
        "purge --older-than 0 --status pending --yes", out=r"\d\n",
    ),
    "delete-db-jobs": _acts(
        "delete-db-jobs --yes", "delete-db-jobs --yes", _LIST, No("running jobs are left, and it says so"), out=r"\d\n"
    ),
    "delete-job-files": _acts(
        "delete-job-files --directory . --yes", "delete-job-files --directory . --yes", _USAGE,
        No("the files of jobs that are not over are left"),
    ),
    "stats": _looks("stats", "stats", _LIST),
    "errors": _looks("errors", "errors", _LIST),
    "monitor-activity": _looks(
        "monitor-activity --count 1", "monitor-activity --count 1", _LIST,
        unreachable=No("it says so, and tries again"), out=r"(?s)20.*Z  pending .*",
    ),
    "backup": _looks("backup copy.db", "backup copy.db", _USAGE),
    "restore": _acts(
        "restore kept.db --yes --force", "restore kept.db --yes", _USAGE, "restore kept.db --yes",
        unreachable="restore kept.db --yes",
    ),
    "up": _acts(
        No("it watches until Ctrl-C"), No("as before"), _ANY, No("what runs already is watched"),
        unreachable="up", read_only="up",
    ),
    "doctor": _looks(
        "doctor", No("without a consumer it finds fault"), _ANY, unreachable=No("that is what it reports: 1")
    ),
    "consumer": _acts("consumer --drain", "consumer --drain", _ANY, _TWICE, unreachable=_PROGRAM),
    "producer": _acts("producer --count 1", "producer --count 1", _ANY, _TWICE, unreachable=_PROGRAM),
    "tui": _looks("tui", "tui", _ANY, unreachable=_PROGRAM),
    "ops": _looks("ops", "ops", _ANY, unreachable=_PROGRAM),
    "queues list": _looks("queues list", "queues list", _LIST),
    "queues show": _looks("queues show default", _ONE, "queues show nobody"),
    "queues pause": _acts("queues pause default", "queues pause default", _ANY, _TWICE),
    "queues resume": _acts("queues resume default", "queues resume default", _ANY, _TWICE),
    "queues drain": _acts("queues drain other", "queues drain other", _ANY, No("it waits for what runs")),
    "consumers list": _looks("consumers list", "consumers list", _LIST),
    "consumers show": _looks("consumers show worker", _ONE, "consumers show nobody"),
    "consumers quiet": _acts("consumers quiet worker", _ONE, "consumers quiet nobody", _TWICE, out="worker@.*\n"),
    "consumers resume": _acts("consumers resume worker", _ONE, "consumers resume nobody", _TWICE, out="worker@.*\n"),
    "consumers stop": _acts("consumers stop worker", _ONE, "consumers stop nobody", _TWICE, out="worker@.*\n"),
    "consumers prune": _acts(
        "consumers prune --yes", "consumers prune --yes", _LIST, No("the living are left"), out=r"\d\n"
    ),
    "workers status": _looks("workers status", "workers status", _LIST, unreachable=No("it asks supervisord alone")),
    "workers add": _acts("workers add", "workers add", _ANY, _PROCESSES, out="worker_00\n"),
    "workers stop": _acts(
        "workers stop consumer_00", _ONE, "workers stop nobody", _PROCESSES, out="consumer_00\n"
    ),
    "audit list": _looks("audit list", "audit list", _LIST),
    "audit show": _looks("audit show {finished}", _ONE, "audit show 4711"),
    "audit resume": _acts(
        "audit resume {begun} --yes", _ONE, "audit resume 4711 --yes", "audit resume {finished} --yes"
    ),
    "batches list": _looks("batches list", "batches list", _LIST, unreachable=_FOLDER),
    "batches show": Row(
        ok="batches show {ready}", empty=_ONE, unknown="batches show nothing", wrong="batches show {damaged}",
        writes=False, unreachable=_FOLDER,
    ),
    "batches recover": _acts("batches recover", "batches recover", _LIST, No("what the living are at is left")),
    "batches replay": _acts(
        "batches replay {ready}", _ONE, "batches replay nothing", "batches replay {damaged}", out=r"ready_\S+\n"
    ),
    "batches quarantine": _acts(
        "batches quarantine {ready}", _ONE, "batches quarantine nothing", "batches quarantine {held}",
        out=r"invalid_\S+\n",
    ),
    "batches delete": _acts(
        "batches delete {ready} --yes", _ONE, "batches delete nothing --yes", "batches delete {held} --yes"
    ),
    "shards list": _looks("shards list", "shards list", _LIST),
    "shards show": _looks("shards show Mail/7", "shards show Mail/7", _LIST),
    "shards release": _acts(
        "shards release Mail/7 --yes", _ONE, "shards release Mail/9 --yes", No("who holds nothing is not found"),
        out="Mail/7\n",
    ),
    "config show": _looks("config show", "config show", _ANY, unreachable=No("it reads no database")),
    "db upgrade": _acts("db upgrade", "db upgrade", _ANY, _TWICE),
    "db init": _acts("db init", "db init", _ANY, _TWICE),
    "db history": _looks("db history", "db history", _ANY),
    "db check": _looks("db check", "db check", _ANY),
    "db info": _looks("db info", "db info", _ANY),
    "db vacuum": _acts("db vacuum", "db vacuum", _ANY, _TWICE),
    "db export": _looks("db export", "db export", _LIST, out=r"(\{.*\}\n)+"),
    "db import": _acts(
        "--db other.db db import jobs.jsonl", "db import jobs.jsonl", _USAGE, No("a queue with jobs will not do: 2"),
        unreachable="db import jobs.jsonl", read_only="db import jobs.jsonl", out=r"\d\n",
    ),
}  # fmt: skip
"""By name, as the tree of commands has them."""


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command that there is, by its whole name."""
    found = [((), get_command(app))]
    while found:
        path, one = found.pop()
        below = getattr(one, "commands", None)
        if below is None:
            yield " ".join(path), one
        else:
            found += [((*path, name), below[name]) for name in below]


def takes(command: Any, option: str) -> bool:
    """Return whether a command has an option."""
    return any(option in parameter.opts for parameter in command.params)


def forms(row: Row) -> Iterator[str]:
    """Yield whatever the command is asked."""
    for cell in (row.ok, row.empty, row.unknown, row.wrong, row.unreachable, row.read_only):
        if isinstance(cell, str):
            yield cell


class Supervisor:
    """Answers as supervisord does, for one consumer that runs."""

    def __init__(self, processes: int = 1) -> None:
        self.infos = [
            {"name": f"consumer_{number:02d}", "group": "consumer", "statename": "RUNNING", "pid": 100 + number,
             "now": 20, "start": 10, "description": "pid 100, uptime 0:00:10"} for number in range(processes)
        ]  # fmt: skip

    def getAllProcessInfo(self) -> list[dict[str, Any]]:  # noqa: N802 - its name there
        return self.infos

    def __getattr__(self, call: str) -> Any:
        if call not in ("reloadConfig", "addProcessGroup", "stopProcess"):
            raise AttributeError(call)
        return lambda *_: True


def pretend_supervisord(monkeypatch: Any, folder: Path, processes: int = 1) -> None:
    """Let commands find a supervisord in this folder."""
    for name in ("run", "supervisor"):
        (folder / name).mkdir(exist_ok=True)
    for name in ("run/supervisor.sock", "supervisord.conf"):
        (folder / name).touch()
    shutil.copy(ROOT / "supervisor" / "supervisord.conf", folder / "supervisor")
    monkeypatch.setattr("persistq.admin.workers.rpc", lambda: Supervisor(processes))


class World:
    """A folder with jobs, files and consumers in every state, and one with nothing."""

    def __init__(self, q: persistq.PersistentQSQLAlchemy, folder: Path, things: dict[str, int], empty: Path) -> None:
        self.q, self.folder, self.empty = q, folder, empty
        self.things: dict[str, object] = dict(things)
        now = q.clock.now()
        q.beat(
            persistq.ConsumerInfo(
                id=WORKER, name="worker", host="h", pid=1, queues=(), concurrency=1, running=0, started_at=now,
                seen_at=now,
            )
        )  # fmt: skip
        (folder / "jobs").mkdir(mode=0o700)
        (folder / "jobs" / "done").touch()

    def prepare(self, command: str) -> AbstractContextManager[object]:
        """Add what only this command or its group needs, and return what keeps it there."""
        group = command.split()[0]
        if group == "batches":
            return self._batches()
        if group == "shards":
            return nullcontext(by_drivers(self.q, _tubes))
        if group == "restore":
            shutil.copy(self.empty / "queue.db", self.empty / "kept.db")
            ok("backup", "kept.db")
        elif command == "audit resume":
            for verb, name in (("cancel", "begun"), ("edit", "finished")):
                options = {"priority": 1} if verb == "edit" else {}
                what = self.q.preview(verb, ids=[self.things["pending"]], **options)  # type: ignore[list-item]
                progress = self.q.begin_bulk(what)
                self.things[name] = progress.operation
            self.q.advance_bulk(what, progress)
        elif command == "audit show":
            self.things["finished"] = self.q.audit()[0].id
        elif command == "db import":
            for place in (self.folder, self.empty):
                (place / "jobs.jsonl").write_text(ok("db", "export"))
        return nullcontext()

    @contextmanager
    def _batches(self) -> Iterator[None]:
        spool = self.folder / "spool"
        fill(spool, range(4), "default", max_items=2)
        with BatchReader(spool, "default") as reader:
            reader.get()
            self.things["held"], self.things["ready"] = (
                only(spool, "unload_", "default").name,
                names(spool, "ready_", "default")[0],
            )
            self.things["damaged"] = "invalid_1700000000000000000_00000000.db"
            (spool / "default" / "invalid_1700000000000000000_00000000.db").write_bytes(b"junk")
            yield

    def state(self) -> object:
        """Return everything that a refused command must not have changed; the audit log may tell of the refusal."""
        jobs = [(job, self.q.events(job.id)) for job in self.q.list_jobs(limit=1000)]
        passing = ("queue.db-wal", "queue.db-shm", "copy.db")
        files = sorted(str(path) for path in self.folder.rglob("*") if path.name not in passing)
        return jobs, self.q.queues(), self.q.consumers(), files


async def _tubes(drivers: Drivers) -> None:
    await drivers.storage.extend([Entry("Mail/7", [b"1"]), Entry("Mail/9", [b"1"])])
    assert await drivers.coordinator().bind("Mail/7")


def make_world(
    q: persistq.PersistentQSQLAlchemy,
    things: dict[str, int],
    databases: SQLite,
    empty: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    """Return the world of one test: its folder is the current one."""
    shutil.move(databases.fresh(), empty / "queue.db")
    for folder in (Path.cwd(), empty):
        pretend_supervisord(monkeypatch, folder)

    def become(*_: object) -> NoReturn:
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", become)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("it was not refused"))
    monkeypatch.setenv("QUEUE_BUSY_SECONDS", "0.2")
    return World(q, Path.cwd(), things, empty)
