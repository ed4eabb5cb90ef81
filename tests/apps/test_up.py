"""persistq up: one command that starts everything, shows it, and takes it all down again."""

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest
from process.yard import eventually
from support.cli import COMMAND, Terminal, run
from support.supervised import QUICK, Project

import persistq

APP = """
import os
import time

import persistq


@persistq.task
def wait_for_gate(item):
    while not os.path.exists("gate"):
        time.sleep(0.02)
"""


class Up:
    """A running ``persistq up`` with what it printed."""

    started: ClassVar[list["Up"]] = []

    def __init__(self, project: Project, *options: str, before: str = "") -> None:
        self.project = project
        self.started.append(self)
        self._out, self._err = project.folder / "up.out", project.folder / "up.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                ["bash", "-c", f'{before} exec "$@"', "bash", *COMMAND, *options, "up", "--interval", "0.2"],
                cwd=project.folder, env=project.environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def await_hints(self) -> None:
        eventually(lambda: "Ctrl-C ends it" in self.err or self.process.poll() is not None, "it says what to do next")
        assert self.process.poll() is None, self.err

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


def await_processes(project: Project) -> list[int]:
    """Return the pids once all are there: between fork and exec a process carries no mark yet."""
    return eventually(lambda: found if len(found := project.processes()) == 7 else None, "seven processes run")


@pytest.fixture
def make_project(tmp_path: Path) -> Iterator[Callable[..., Project]]:
    made: list[Project] = []
    Up.started.clear()

    def make(env: str = QUICK, *, layout: bool = False, folder: Path | None = None) -> Project:
        made.append(Project(folder or tmp_path / "p", env, layout=layout))
        return made[-1]

    yield make
    for one in made:
        one.clean_up()
    for up in Up.started:
        up.process.wait(60)


@pytest.fixture
def make_small(make_project: Callable[..., Project]) -> Callable[..., Project]:
    """Make projects whose configuration starts one consumer and nothing else."""

    def make(env: str = QUICK) -> Project:
        project = make_project(env, layout=True)
        path = project.folder / "supervisor" / "supervisord.conf"
        consumer = re.search(r"^\[program:consumer\]\n.*?(?=^\[)", path.read_text(), re.MULTILINE | re.DOTALL)
        assert consumer is not None
        head = path.read_text().partition("[eventlistener:watchdog]")[0]
        path.write_text(head + consumer[0].replace("numprocs=2", "numprocs=1"))
        return project

    return make


def test_an_empty_folder_is_all_it_needs(make_project: Callable[..., Project]) -> None:
    project = make_project()
    up = Up(project, "--db", "other.db", before="umask 000;")
    up.await_hints()
    eventually(lambda: "consumer_01 pid" in up.out, "the processes are shown")
    running = await_processes(project)
    with closing(persistq.connect(project.folder / "other.db")) as q:
        eventually(lambda: q.counts()["done"], "jobs are done")
    assert (project.folder / "supervisor" / "supervisord.conf").exists()
    assert (project.folder / "supervisord.conf").exists()
    assert "\x1b" not in up.out, "a pipe gets plain blocks"
    assert up.err.count("In another terminal") == 1
    written = [*project.folder.glob("other.db*"), *(project.folder / "jobs").iterdir(),
               *(project.folder / "logs").iterdir()]  # fmt: skip
    lax = {path.name: oct(path.stat().st_mode & 0o777) for path in written if path.stat().st_mode & 0o077}
    assert lax == {}, "whatever it writes is private"
    assert (project.folder / "run").stat().st_mode & 0o777 == 0o700

    second = subprocess.Popen(
        [*COMMAND, "--db", "other.db", "up", "--interval", "0.2"], cwd=project.folder, env=project.environment(),
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert second.stdout is not None
    assert eventually(lambda: "pending" in second.stdout.readline())
    assert set(project.processes()) - {second.pid} == set(running), "a second one starts nothing"
    second.send_signal(signal.SIGINT)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 0
    assert "only watches" in err
    assert set(project.processes()) == set(running), "and ends nothing"

    assert up.stop(signal.SIGTERM) == 0
    assert project.processes() == []
    assert "Traceback" not in up.err
    assert not (project.folder / "queue.db").exists(), "the database that was named is the one that is used"


def test_a_person_sees_it_go_on_where_it_was_and_ends_it_by_ctrl_c(
    make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(layout=True)
    monkeypatch.chdir(project.folder)
    assert run("producer", "--count", "2", "--interval", "0").returncode == 0
    assert run("consumer", "--drain").returncode == 0
    shown = Terminal([*COMMAND, "up", "--interval", "0.2"], columns=100, variables=project.environment())
    try:
        eventually(lambda: shown.read() and re.search(r"done [^012]", shown.text()), "more jobs are done")
        assert "Ctrl-C ends it" in shown.text()
        shown.type_when("done", b"\x03")
        assert shown.wait() == 0
        assert "everything has stopped" in shown.text()
        assert b"Traceback" not in shown.sent
        assert project.processes() == []
    finally:
        shown.close()
    with closing(project.q) as q:
        assert q.list_jobs(limit=1)[0].id == 1, "the jobs of the first run are still there"
        assert {job.attempts for job in q.list_jobs("done", limit=1000)} == {1}


def test_a_running_job_is_finished_before_the_end(make_small: Callable[..., Project]) -> None:
    project = make_small(QUICK + "QUEUE_APP=work\nQUEUE_TASK=wait_for_gate\n")
    (project.folder / "work.py").write_text(APP)
    up = Up(project)
    with closing(project.q) as q:
        job_id = q.enqueue("x")
        up.await_hints()
        eventually(lambda: q.get_job(job_id).status == "processing", "a job runs")
        up.process.send_signal(signal.SIGINT)
        eventually(lambda: "running jobs are finished first" in up.err, "it says so")
        (project.folder / "gate").touch()
        assert up.process.wait(60) == 0
        assert q.get_job(job_id).status == "done"
    assert project.processes() == []


def test_a_second_ctrl_c_releases_the_running_jobs_at_once(make_small: Callable[..., Project]) -> None:
    project = make_small(
        QUICK.replace("GRACE_SECONDS=10", "GRACE_SECONDS=3600") + "QUEUE_APP=work\nQUEUE_TASK=wait_for_gate\n"
    )
    (project.folder / "work.py").write_text(APP)
    up = Up(project)
    with closing(project.q) as q:
        job_id = q.enqueue("x")
        up.await_hints()
        eventually(lambda: q.get_job(job_id).status == "processing", "a job runs")
        log = project.folder / "logs" / "consumer_00.log"
        up.process.send_signal(signal.SIGINT)
        eventually(lambda: "stopping: 1 jobs" in log.read_text(), "it drains")
        assert up.stop() == 0, up.err
        assert "Traceback" not in up.err
        assert "Fault" not in up.err
        assert (q.get_job(job_id).status, q.get_job(job_id).attempts) == ("pending", 0)
    assert project.processes() == []


def test_a_leftover_socket_is_no_obstacle_and_a_closed_terminal_leaves_no_process(
    make_small: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisord is killed, and its socket stays; then the window is closed: a hang-up is an order to stop."""
    project = make_small()
    first = Up(project)
    first.await_hints()
    project.clean_up()
    first.process.wait(60)
    assert (project.folder / "run" / "supervisor.sock").exists()

    monkeypatch.chdir(project.folder)
    shown = Terminal([*COMMAND, "up", "--interval", "0.2"], columns=100, variables=project.environment())
    eventually(lambda: shown.read() and "consumer pid" in shown.text().replace("consumer_00", "consumer"), "it runs")
    shown.hang_up()
    eventually(lambda: not project.processes(), "everything has ended")
    shown.process.wait(60)


@pytest.mark.parametrize("counted", ["characters", "bytes"])
def test_a_path_that_is_too_long_for_a_socket_is_a_clear_error(
    make_project: Callable[..., Project], tmp_path: Path, counted: str
) -> None:
    """A socket's path may have 107 bytes; supervisord adds its pid while it binds."""
    room = 100 - len(str(tmp_path / "_" / "run" / "supervisor.sock")) + 1
    project = make_project(folder=tmp_path / ("n" * (room + 1) if counted == "characters" else "é" * room))
    done = subprocess.run(
        [*COMMAND, "up"], cwd=project.folder, env=project.environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "too long" in done.stderr
    assert "Traceback" not in done.stderr
    assert project.processes() == []


def test_it_says_so_when_supervisord_ends_by_itself(make_small: Callable[..., Project]) -> None:
    project = make_small()
    up = Up(project)
    up.await_hints()
    project.type("supervisorctl shutdown")
    assert up.process.wait(60) == 1
    assert "ended by itself" in up.err
    eventually(lambda: project.processes() == [])


def test_a_configuration_that_supervisord_refuses_is_a_clear_error(make_project: Callable[..., Project]) -> None:
    project = make_project(layout=True)
    project.edit("numprocs=2", "numprocs=many")
    done = subprocess.run(
        [*COMMAND, "up"], cwd=project.folder, env=project.environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "persistq: supervisord did not start" in done.stderr
    assert project.processes() == []


def test_a_database_out_of_reach_starts_nothing(tmp_path: Path) -> None:
    done = run("--db", str(tmp_path / "nowhere" / "queue.db"), "up")
    assert done.returncode == 5
    assert not (tmp_path / "logs" / "supervisord.log").exists()


@pytest.mark.parametrize(("program", "words"), [("consumer", "--concurrency"), ("producer", "--interval")])
def test_a_programs_own_help_is_passed_through(program: str, words: str) -> None:
    done = run(program, "--help")
    assert done.returncode == 0
    assert done.stdout.decode().startswith(f"usage: {program}")
    assert words in done.stdout.decode()


def test_a_programs_own_options_are_passed_through(tmp_path: Path) -> None:
    done = run("producer", "--count", "2", "--interval", "0")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "jobs").glob("job_*.txt"))) == 2
    assert run("consumer", "--drain", "--concurrency", "2").returncode == 0
    assert all(len(path.read_text().splitlines()) == 2 for path in (tmp_path / "jobs").iterdir())
    assert run("consumer", "--concurrency", "0").returncode == 2
    assert run("consumer", "--app", "nowhere").returncode == 78
