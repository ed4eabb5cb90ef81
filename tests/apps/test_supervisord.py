"""The supervised system: who may reach it, what it leaves on disk, and what a killed consumer costs."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from process.yard import eventually
from support.cli import invoke
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


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The project with its processes up, started by the laxest of users from another folder."""
    made = Project(tmp_path_factory.mktemp("supervised") / "p", QUICK)
    made.edit("startsecs=3", "startsecs=1")
    try:
        started = made.type(f"umask 000; supervisord -c {made.folder}/supervisor/supervisord.conf", cwd=Path("/"))
        assert started.returncode == 0, started.stderr
        made.await_running()
        q = made.q
        eventually(lambda: q.counts()["done"] >= 2, "jobs flow")
        q.close()
        yield made
        made.shut_down()
    finally:
        made.clean_up()


@pytest.fixture
def quick_project(tmp_path: Path) -> Iterator[Callable[..., Project]]:
    """Make a project of the test's own."""
    made: list[Project] = []

    def make(env: str = QUICK) -> Project:
        made.append(Project(tmp_path / "p", env))
        made[-1].edit("startsecs=3", "startsecs=1")
        return made[-1]

    yield make
    for one in made:
        one.clean_up()


def test_it_works_in_its_own_folder_wherever_it_was_started(project: Project) -> None:
    assert (project.folder / "queue.db").exists()
    assert list((project.folder / "jobs").glob("job_*.txt"))
    assert not Path("/queue.db").exists()


def test_the_socket_is_for_this_user_only(project: Project) -> None:
    socket = project.folder / "run" / "supervisor.sock"
    assert socket.is_socket()
    assert socket.stat().st_mode & 0o777 == 0o700


def test_nothing_listens_on_the_network(project: Project) -> None:
    pids = project.processes()
    assert len(pids) == 6
    assert not set().union(*map(_sockets, pids)) & _listening()


def test_each_process_has_logs_of_its_own(project: Project) -> None:
    programs = ("consumer_00", "consumer_01", "maintenance", "producer")
    expected = {"supervisord.log", "watchdog.log"} | {f"{name}{end}.log" for name in programs for end in ("", "_err")}
    assert {path.name for path in (project.folder / "logs").iterdir()} == expected
    assert "job 1" in (project.folder / "logs" / "producer.log").read_text()
    for name in programs:
        assert (project.folder / "logs" / f"{name}_err.log").read_text() == ""


def test_whatever_it_writes_is_private(project: Project) -> None:
    """Job files and logs hold the users' data; umask=077 in the configuration, 000 in the shell.

    Supervisor opens its own log, which names processes and nothing else, before it sets its umask.
    """
    written = [*project.folder.glob("queue.db*"), *(project.folder / "jobs").iterdir(),
               *(project.folder / "logs").iterdir()]  # fmt: skip
    written = [path for path in written if path.name != "supervisord.log"]
    lax = {path.name: oct(path.stat().st_mode & 0o777) for path in written if path.stat().st_mode & 0o077}
    assert lax == {}
    assert (project.folder / "jobs").stat().st_mode & 0o777 == 0o700


def test_the_consumers_carry_the_names_of_their_processes(project: Project) -> None:
    q = project.q
    names = eventually(lambda: found if len(found := sorted(info.name for info in q.consumers())) == 2 else None)
    assert names == ["consumer_00", "consumer_01"]
    q.close()


def test_doctor_finds_a_supervised_system_sound(project: Project) -> None:
    done = project.type("python -m admin.admin doctor")
    assert done.returncode == 0, done.stdout


def test_hup_gives_the_producer_its_new_interval(project: Project) -> None:
    text = (project.folder / ".env").read_text()
    (project.folder / ".env").write_text(text.replace("INTERVAL_TIME = 0.5", "INTERVAL_TIME = 0.25"))
    assert project.type("supervisorctl signal HUP producer").returncode == 0
    log = project.folder / "logs" / "producer.log"
    eventually(lambda: "one job every 0.25 s" in log.read_text(), "it reads its settings again")


def test_workers_come_and_go_and_leave_the_others_alone(project: Project) -> None:
    before = project.running()
    added = project.type("python -m admin.admin workers add --count 2 --queue extra --concurrency 3")
    assert (added.returncode, added.stdout, added.stderr) == (0, "worker_00\nworker_01\n", "")
    running = project.await_running(7)
    assert {name: pid for name, pid in running.items() if name in before} == before
    q = project.q
    consumers = eventually(lambda: found if len(found := {info.name: info for info in q.consumers()}) == 4 else None)
    assert (consumers["worker_00"].queues, consumers["worker_00"].concurrency) == (("extra",), 3)
    kept = project.folder / "supervisor" / "workers.d" / "worker_00.conf"
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    listed = project.type("python -m admin.admin workers status --json").stdout
    assert {row["name"]: row["state"] for row in json.loads(listed)}["worker_01"] == "RUNNING"

    assert project.type("python -m admin.admin workers stop worker_00").stdout == "worker_00\n"
    assert "worker_00" not in project.running()
    gone = project.type("python -m admin.admin workers stop worker_00 worker_01 --remove")
    assert (gone.returncode, gone.stdout) == (0, "worker_00\nworker_01\n")
    assert not list(kept.parent.iterdir())
    assert project.running() == before
    assert [entry.action for entry in q.audit(limit=3)] == ["workers_stop", "workers_stop", "workers_add"]
    q.close()


def test_programs_that_are_available_are_taken_by_copying(project: Project) -> None:
    before = project.running()
    project.type("mkdir -p supervisor/workers.d && cp supervisor/available/batches.conf supervisor/workers.d/")
    assert project.type("supervisorctl update").returncode == 0
    running = project.await_running(8)
    assert running.keys() - before.keys() == {
        "batch_consumer:batch_consumer_00", "batch_consumer:batch_consumer_01", "batch_producer"
    }  # fmt: skip
    project.type("rm supervisor/workers.d/batches.conf")
    assert project.type("supervisorctl update").returncode == 0
    assert project.running() == before


@pytest.mark.parametrize(
    ("line", "code", "part"),
    [
        ("workers stop nobody", 3, "no process nobody"),
        ("workers stop producer --remove", 2, "did not start producer"),
        ("workers add --queue 'a b'", 2, "no name"),
        ("workers add --queue $'mail\\nuser=root'", 2, "no name"),
        ("workers add --app 'os;rm'", 2, "no name"),
        ("workers add --queue '%(ENV_HOME)s'", 2, "no name"),
        ("--read-only workers add", 4, "read-only"),
        ("--read-only workers stop producer", 4, "read-only"),
    ],
)
def test_what_cannot_be_a_worker_is_refused(project: Project, line: str, code: int, part: str) -> None:
    before = project.running()
    done = project.type(f"python -m admin.admin {line}")
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert part in done.stderr
    assert project.running() == before
    assert not list((project.folder / "supervisor").glob("workers.d/*"))


def test_without_supervisord_the_way_to_start_it_is_told(tmp_path: Path) -> None:
    for command in ("status", "add", "stop consumer_00"):
        result = invoke("workers", *command.split())
        assert (result.exit_code, result.stdout) == (1, "")
        assert "persistq up" in result.stderr
    assert not (tmp_path / "supervisor").exists()


def test_a_killed_consumer_is_replaced_and_its_job_done(quick_project: Callable[..., Project]) -> None:
    project = quick_project(QUICK + "QUEUE_APP=work\nQUEUE_TASK=wait_for_gate\n")
    (project.folder / "work.py").write_text(APP)
    project.edit("[program:producer]", "[program:producer]\nautostart=false ;")
    project.edit("priority=200\nautostart=true", "priority=200")
    q = project.q
    project.type("supervisord -c supervisor/supervisord.conf")
    before = project.await_running(4)

    job_id = q.enqueue("item")
    job = eventually(lambda: found if (found := q.get_job(job_id)).status == "processing" else None, "it runs")
    name, pid = _holder(job)
    assert before[f"consumer:{name}"] == pid
    os.kill(pid, signal.SIGKILL)

    again = eventually(lambda: found if (found := q.get_job(job_id)).attempts == 2 else None, "it runs again")
    assert again.consumer_id != job.consumer_id
    assert (again.started_at or again.created_at) > (job.started_at or job.created_at)
    after = project.await_running(4)
    assert after[f"consumer:{name}"] != pid
    (project.folder / "gate").touch()
    done = eventually(lambda: found if (found := q.get_job(job_id)).status == "done" else None, "it is done")
    assert done.attempts == 2
    assert [event.kind for event in q.events(job_id)] == ["crashed"]
    q.close()
    project.shut_down()


def test_a_killed_consumers_job_runs_again_long_before_its_lease_ends(quick_project: Callable[..., Project]) -> None:
    env = QUICK.replace("TIMEOUT_SECONDS=2", "TIMEOUT_SECONDS=600")
    project = quick_project(env + "QUEUE_APP=work\nQUEUE_TASK=wait_for_gate\n")
    (project.folder / "work.py").write_text(APP)
    project.edit("[program:producer]", "[program:producer]\nautostart=false ;")
    project.edit("priority=200\nautostart=true", "priority=200")
    q = project.q
    project.type("supervisord -c supervisor/supervisord.conf")
    project.await_running(4)
    job_id = q.enqueue("item")
    job = eventually(lambda: found if (found := q.get_job(job_id)).status == "processing" else None, "it runs")
    os.kill(_holder(job)[1], signal.SIGKILL)
    killed = time.monotonic()
    again = eventually(lambda: found if (found := q.get_job(job_id)).attempts == 2 else None, "it runs again")
    print(f"it ran again after {time.monotonic() - killed:.2f} s")
    assert again.suspect
    assert again.consumer_id != job.consumer_id
    (entry,) = q.audit()
    assert (entry.action, entry.via, entry.counts) == ("bury", "supervisor", {"changed": 1})
    assert job.consumer_id not in [info.id for info in q.consumers()]

    # What does not start at all is written down when supervisord gives it up.
    project.edit("command=python -m persistq.producer.producer", "command=python -m no_such_module")
    project.edit("startretries=10\nstopsignal=TERM\nstopwaitsecs=15\nkillasgroup=true\n"
                 'environment=PYTHONUNBUFFERED="1"\nstdout_logfile=%(here)s/../logs/producer.log',
                 "startretries=0\nstopsignal=TERM\nstopwaitsecs=15\nkillasgroup=true\n"
                 'environment=PYTHONUNBUFFERED="1"\nstdout_logfile=%(here)s/../logs/producer.log')  # fmt: skip
    project.type("supervisorctl reread; supervisorctl update producer; supervisorctl start producer")
    fatal = eventually(lambda: [one for one in q.audit() if one.action == "process_fatal"], "it is written down")
    assert fatal[0].scope == {"process": "producer:producer"}
    assert "supervisord has given it up" in (project.folder / "logs" / "watchdog.log").read_text()
    (project.folder / "gate").touch()
    q.close()
    project.shut_down()


def _holder(job: persistq.Job) -> tuple[str, int]:
    """Return the name and the pid in a consumer's id, name@host:pid:random."""
    name, _, rest = (job.consumer_id or "").partition("@")
    return name, int(rest.split(":")[1])


def _sockets(pid: int) -> set[str]:
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(path.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def _listening() -> set[str]:
    """Return the inodes of the sockets that listen on TCP."""
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        if (path := Path("/proc/net") / name).exists()
        for line in path.read_text().splitlines()[1:]
    ]
    return {row[9] for row in rows if row[3] == "0A"}
