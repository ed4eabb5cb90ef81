"""Every list that --json prints is one document: of no row, of one, and of ten thousand."""

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.batches import fill, only
from support.cli import invoke, ok
from support.jobs import claim

import persistq
from apps.every_command import commands, pretend_supervisord, takes
from persistq import beyond
from persistq.batch import Recovered, manage
from persistq.operations import MOST_FAILURES
from persistq.sharded import Entry
from persistq.sharded.serve import opened

MANY = 10_000

LISTS: dict[str, str] = {
    "list-jobs": "list-jobs --limit 100000",
    "delete-job-files": "delete-job-files --directory . --dry-run",
    "errors": "errors --limit 10000",
    "queues list": "queues list",
    "consumers list": "consumers list",
    "workers status": "workers status",
    "audit list": "audit list --limit 100000",
    "batches list": "batches list --limit 100000 --queue files",
    "batches show": "batches show {batch} --queue items --limit 100000",
    "batches recover": "batches recover --spool queues",
    "consumers show": "--db held.db consumers show holder --limit 100000",
    "shards list": "shards list --limit 100000",
    "shards show": "shards show Mail/0 --limit 100000",
    "stats": "stats",
}
ROWS: dict[str, Callable[[Any], list[Any]]] = {
    "consumers show": lambda found: found[0]["jobs"],
    "stats": lambda found: found["queues"],
}
"""Where in the document they are; elsewhere it is they."""

ONE_DOCUMENT = {
    "of one thing": {
        "show-job", "explain", "queues show", "audit show", "db upgrade", "db init", "db check", "db info",
    },
    "of a bulk action; of ids a row for each that was typed": {
        "cancel", "resubmit", "mark-failed", "assign-job", "release", "edit-job", "delete-job", "audit resume",
        "batches delete",
    },
    "of as many rows as the program has checks, settings or revisions": {"doctor", "config show", "db history"},
}  # fmt: skip
"""What does not grow with the queue, and is shown to be JSON elsewhere."""


def test_every_command_that_prints_json_is_in_one_of_the_tables() -> None:
    others = {name for names in ONE_DOCUMENT.values() for name in names}
    assert sorted([*LISTS, *others]) == sorted(name for name, one in commands() if takes(one, "--json"))


@pytest.fixture(scope="module", params=[0, 1, MANY])
def rows(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A folder whose queue has so many of everything, and how many that is."""
    folder, number = tmp_path_factory.mktemp("rows"), int(request.param)
    q = persistq.connect(folder / "queue.db", queue_durability="process")
    q.counts()
    if number:
        q.enqueue("0.txt", "q0")
        q.fail(claim(q, queue="q0"), "ValueError: bad", permanent=True)
        q.note("looked", {})
        beat(q, "0")
        with closing(sqlite3.connect(folder / "queue.db")) as connection:
            multiply(connection, "jobs", number, item="i || '.txt'", queue="'q' || i", id="i + 1")
            multiply(connection, "consumers", number, id="i")
            multiply(connection, "audit", number, id="i + 1")
            connection.commit()
        q.mend_tallies()
        asyncio.run(add_requests(q, number))
    q.close()
    add_files(folder, number)
    add_holder(folder / "held.db", number)
    return folder, number


def beat(q: persistq.PersistentQSQLAlchemy, consumer: str) -> None:
    now = q.clock.now()
    q.beat(
        persistq.ConsumerInfo(
            id=consumer,
            name=consumer,
            host="h",
            pid=1,
            queues=(),
            concurrency=1,
            running=0,
            started_at=now,
            seen_at=now,
        )
    )


def add_holder(path: Path, number: int) -> None:
    """Make a queue whose only consumer holds so many jobs."""
    q = persistq.connect(path, queue_durability="process")
    beat(q, "holder")
    if number:
        q.enqueue("x")
        claim(q, "holder")
        with closing(sqlite3.connect(path)) as connection:
            multiply(connection, "jobs", number, id="i + 1")
            connection.commit()
    q.close()


def multiply(connection: sqlite3.Connection, table: str, number: int, **changed: str) -> None:
    """Make so many rows of a table's only one; ``changed`` are columns as expressions of the number ``i``."""
    names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(changed.get(name, f'"{name}"') for name in names)
    connection.execute(
        f"WITH RECURSIVE n(i) AS (SELECT 1 WHERE {number} > 1 UNION ALL SELECT i + 1 FROM n WHERE i < {number - 1}) "
        f"INSERT INTO {table} SELECT {values} FROM {table}, n"
    )


async def add_requests(q: persistq.PersistentQSQLAlchemy, number: int) -> None:
    async with opened(q) as drivers:
        await drivers.storage.extend([Entry(f"Mail/{n}", [b"1"] * (number if n == 0 else 1)) for n in range(number)])


def add_files(folder: Path, number: int) -> None:
    for name in ("jobs", "queues"):
        (folder / name).mkdir()
    for n in range(min(number, 1)):
        (folder / "queues" / f"q{n}").mkdir(mode=0o700)
    fill(folder / "spool", range(max(number, 1)), "items", max_items=MANY)
    batch = only(folder / "spool", queue="items")
    (folder / "spool" / "files").mkdir(mode=0o700)
    for n in range(number):
        (folder / "jobs" / f"{n}.txt").touch()
        os.link(batch, folder / "spool" / "files" / f"ready_17000000000000{n:05d}_00000000.db")


def spare_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be done to each file; it is the printing of the rows that is asked for here."""
    monkeypatch.setattr(persistq.PersistentQSQLAlchemy, "has_live_job", lambda *_: False)
    monkeypatch.setattr(manage, "_opened", lambda _path: SimpleNamespace(items=1, progress=0, close=lambda: None))
    monkeypatch.setattr(beyond.batch, "queues", lambda _root: [f"q{n}" for n in range(MANY)])
    monkeypatch.setattr(beyond.batch, "recover", lambda *_, **__: Recovered())


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_any_length_is_one_document(
    name: str, rows: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, number = rows
    monkeypatch.chdir(folder)
    pretend_supervisord(monkeypatch, folder, number)
    if number == MANY and name != "batches show":
        spare_the_work(monkeypatch)
    batch = only(folder / "spool", queue="items").name
    found = json.loads(ok(*LISTS[name].format(batch=batch).split(), "--json"))
    expected = {"batches show": max(number, 1), "errors": min(number, MOST_FAILURES)}  # no batch is without items
    assert len(ROWS.get(name, list)(found)) == expected.get(name, number)


@pytest.mark.parametrize("number", [1, MANY])
def test_ids_that_were_typed_are_one_document(
    number: int, q: persistq.PersistentQSQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a command of this form the others share everything but the action, which is spared here."""
    job = q.get_job(q.enqueue("x"))
    monkeypatch.setattr(persistq.PersistentQSQLAlchemy, "cancel", lambda _q, job_id, _reason: replace(job, id=job_id))
    found = json.loads(ok("cancel", *map(str, range(1, number + 1)), "--json"))
    assert [row["id"] for row in found] == list(range(1, number + 1))


def test_ids_of_which_none_is_known_are_one_document_too(q: persistq.PersistentQSQLAlchemy) -> None:
    result = invoke("cancel", "4711", "4712", "--json")
    assert (json.loads(result.stdout), result.exit_code) == ([], 3)
