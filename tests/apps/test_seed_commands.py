"""Each supervisorctl and admin line of the document that the user gave, verbatim, from the project's folder.

Not here, for their windows are not built yet:
    poetry run python -m manager.manager
    poetry run python -m manager.manager.py
    poetry run streamlit run ops/ops.py
nor the set-up lines `poetry install`, `python -m venv venv` and `source venv/bin/activate`, which are not ours.
Where Poetry is not installed, `poetry` is a two-line stand-in: support.supervised.STAND_IN_FOR_POETRY.
"""

import signal
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from process.yard import eventually
from support.supervised import Project

import persistq

SEED_ENV = "QUEUE_DB_FILE=queue.db\nMAX_ATTEMPTS=3\nTIMEOUT_SECONDS=60\nINTERVAL_TIME = 5\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The project with its processes up, started by the document's own line; the shipped files unchanged."""
    made = Project(tmp_path_factory.mktemp("seed") / "p", SEED_ENV)
    try:
        started = made.type("supervisord -c supervisor/supervisord.conf")
        assert (started.returncode, started.stdout, started.stderr) == (0, "", "")
        made.await_running()
        yield made
        made.shut_down()
    finally:
        made.clean_up()


@pytest.fixture
def q(project: Project) -> Iterator[persistq.PersistentQSQLAlchemy]:
    queue = project.q
    yield queue
    queue.close()


def _aside(q: persistq.PersistentQSQLAlchemy) -> int:
    """Enqueue a job that no consumer takes meanwhile."""
    return q.enqueue("aside", delay=timedelta(days=1))


def test_supervisorctl_status(project: Project) -> None:
    done = project.type("supervisorctl status")
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines()}
    assert lines == dict.fromkeys(
        ("consumer:consumer_00", "consumer:consumer_01", "maintenance", "producer", "watchdog"), "RUNNING"
    )


def test_supervisorctl_status_consumer_star(project: Project) -> None:
    """The shell makes consumer* the name of the folder consumer/, which is the group's name."""
    assert (project.folder / "consumer").is_dir()
    done = project.type("supervisorctl status consumer*")
    assert done.returncode == 0
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["consumer:consumer_00", "RUNNING"],
        ["consumer:consumer_01", "RUNNING"],
    ]


def test_supervisorctl_status_of_a_quoted_pattern(project: Project) -> None:
    done = project.type("supervisorctl status 'consumer_*'")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("supervisorctl stop consumer_00", "consumer:consumer_00"),
        (" supervisorctl -c supervisor/supervisord.conf stop consumer:consumer_00", "consumer:consumer_00"),
    ],
)
def test_a_consumer_is_stopped(project: Project, line: str, name: str) -> None:
    done = project.type(line)
    assert (done.returncode, done.stdout) == (0, f"{name}: stopped\n")
    assert name not in project.running()
    assert "consumer:consumer_01" in project.running()
    assert project.type("supervisorctl start consumer_00").stdout == f"{name}: started\n"
    project.await_running()


def test_reread_and_update_without_a_change(project: Project) -> None:
    before = project.running()
    reread, update = project.type("supervisorctl reread"), project.type("supervisorctl update")
    assert (reread.returncode, reread.stdout) == (0, "No config updates to processes\n")
    assert (update.returncode, update.stdout) == (0, "")
    assert project.running() == before


def test_a_name_that_is_none_is_an_error(project: Project) -> None:
    assert project.type("supervisorctl stop consumer_99").returncode == 1
    assert project.type("supervisorctl status consumer_99").returncode == 4


def test_list_jobs(project: Project, q: persistq.PersistentQSQLAlchemy) -> None:
    job_id = _aside(q)
    done = project.type("poetry run python -m admin.admin list-jobs")
    assert (done.returncode, done.stderr) == (0, "")
    assert [str(job_id), "pending"] in [line.split("\t")[:2] for line in done.stdout.splitlines()]


def test_monitor_activity(project: Project) -> None:
    """It goes on until a person who has seen enough presses Ctrl-C."""
    line = "exec poetry run python -m admin.admin monitor-activity --interval 5"
    seen = ""
    with subprocess.Popen(
        ["bash", "-c", line], cwd=project.folder, env=project.environment() | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as monitor:  # fmt: skip
        assert monitor.stdout is not None
        assert monitor.stderr is not None
        while "consumer_00 pid" not in seen and (text := monitor.stdout.readline()):
            seen += text
        monitor.send_signal(signal.SIGINT)
        assert monitor.wait(30) == 130
        assert "Traceback" not in monitor.stderr.read()
    assert "consumer_00 pid" in seen


def test_resubmit(project: Project, q: persistq.PersistentQSQLAlchemy) -> None:
    job_id = _aside(q)
    q.mark_failed(job_id)
    assert project.type(f"poetry run python -m admin.admin resubmit {job_id}").returncode == 0
    eventually(lambda: q.get_job(job_id).status == "failed", "a consumer takes it: 'aside' is no file")
    kinds = [event.kind for event in q.events(job_id)]
    assert kinds[:2] == ["failed", "resubmitted"]


def test_mark_failed(project: Project, q: persistq.PersistentQSQLAlchemy) -> None:
    job_id = _aside(q)
    assert project.type(f"poetry run python -m admin.admin mark-failed {job_id}").returncode == 0
    assert q.get_job(job_id).status == "failed"


def test_assign_job(project: Project, q: persistq.PersistentQSQLAlchemy) -> None:
    job_id = _aside(q)
    done = project.type(f"poetry run python -m admin.admin assign-job {job_id} consumer_01")
    assert (done.returncode, done.stderr) == (0, "")
    assert q.get_job(job_id).assigned_to == "consumer_01"


def test_an_assigned_job_goes_to_that_consumer(project: Project, q: persistq.PersistentQSQLAlchemy) -> None:
    delayed = q.enqueue("not a file", delay=timedelta(days=1))
    assert project.type(f"poetry run python -m admin.admin assign-job {delayed} consumer_01").returncode == 0
    q.edit_job(delayed, run_at=q.clock.now())
    eventually(lambda: q.get_job(delayed).status == "failed", "consumer_01 has taken it")
    assert (q.get_job(delayed).consumer_id or "").startswith("consumer_01@")


def test_delete_job_files(project: Project, q: persistq.PersistentQSQLAlchemy) -> None:
    eventually(lambda: q.counts()["done"], "the producer's first job is done")
    (project.folder / "notes.txt").write_text("precious")
    (done_job, *_) = q.list_jobs("done")
    path = Path(done_job.item)
    assert len(path.read_text().splitlines()) == 2, "the random text and one stamp"
    refused = project.type("poetry run python -m admin.admin delete-job-files --directory .")
    assert refused.returncode == 1
    assert path.exists()
    agreed = project.type("poetry run python -m admin.admin delete-job-files --directory .", stdin="y\n")
    assert agreed.returncode == 0
    assert not path.exists()
    assert (project.folder / "notes.txt").read_text() == "precious"
    assert (project.folder / "queue.db").exists()
    assert (project.folder / "admin" / "admin.py").exists()


def test_delete_db_jobs(project: Project, q: persistq.PersistentQSQLAlchemy) -> None:
    job_id = _aside(q)
    assert project.type("poetry run python -m admin.admin delete-db-jobs", stdin="n\n").returncode == 1
    assert q.get_job(job_id)
    assert project.type("poetry run python -m admin.admin delete-db-jobs", stdin="y\n").returncode == 0
    with pytest.raises(persistq.JobNotFound):
        q.get_job(job_id)


def test_one_more_consumer(project: Project) -> None:
    """The document's recipe: change numprocs, reread, update, look."""
    command = "command=python -m persistq.consumer.consumer\nnumprocs="
    project.edit(f"{command}2", f"{command}3")
    reread = project.type("supervisorctl reread")
    assert (reread.returncode, reread.stdout) == (0, "consumer: changed\n")
    update = project.type("supervisorctl update")
    assert update.returncode == 0
    assert "consumer: updated process group" in update.stdout
    assert "consumer:consumer_02" in project.await_running(6)
    done = project.type("supervisorctl status consumer*")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3)
