"""delete-job-files deletes what jobs that are over name inside QUEUE_JOB_DIR, and never anything else."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cli import environment, invoke, ok

import persistq
from persistq import cleanup

Queue = persistq.PersistentQSQLAlchemy

PRECIOUS = "precious"


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Path]:
    """A job folder, beside it files that have to survive, all reachable by a planted item."""
    folder = tmp_path / "jobs"
    (folder / "sub").mkdir(parents=True)
    for victim in _victims(tmp_path):
        victim.parent.mkdir(exist_ok=True)
        victim.write_text(PRECIOUS)
    yield folder
    for victim in _victims(tmp_path):
        assert victim.read_text() == PRECIOUS, f"{victim} has to survive every test"


def _victims(folder: Path) -> list[Path]:
    return [folder / "README.md", folder / "jobs2" / "twin.txt", folder / "outside" / "victim.txt"]


def over(q: Queue, item: str, status: str = "done") -> int:
    """Enqueue a job that is over and return its id."""
    job_id = q.enqueue(item)
    if status == "cancelled":
        q.cancel(job_id)
    elif status == "failed":
        q.mark_failed(job_id)
    else:
        job = q.dequeue("worker@host:1:aaaa")
        assert job is not None
        assert job.id == job_id
        q.complete(job)
    return job_id


def delete(*options: str, directory: Path | str = ".") -> str:
    return ok("delete-job-files", "--directory", str(directory), "--yes", *options)


def outcomes(printed: str) -> list[str]:
    return [line.split("\t")[2] for line in printed.splitlines()]


@pytest.mark.parametrize("status", ["done", "failed", "cancelled"])
@pytest.mark.parametrize("relative", [True, False], ids=["relative", "absolute"])
def test_the_file_of_a_job_that_is_over_is_deleted(q: Queue, yard: Path, status: str, relative: bool) -> None:
    path = yard / "sub" / "job.txt"
    path.touch()
    job_id = over(q, "sub/job.txt" if relative else str(path), status)
    assert delete() == f"{job_id}\t{path}\tdeleted\n"
    assert not path.exists()
    assert (yard / "sub").is_dir()


NAMES = {
    "newline": "a\nb",
    "an option": "-rf",
    "a wildcard": "*",
    "spaces": "  a  ",
    "quotes": "'\"`$(touch x)",
    "other scripts": "Grüße-漢字-🚀",
    "longest": "n" * 255,
    "a backslash": "a\\b",
    "controls": "\x1b[2J\x07",
    "inside, by detour": "sub/../job",
    "hidden": ".hidden",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_awkward_names_are_only_names(q: Queue, yard: Path, name: str) -> None:
    path, neighbour = Path(os.path.normpath(yard / name)), yard / "neighbour"
    path.touch()
    neighbour.touch()
    over(q, name)
    printed = delete()
    assert outcomes(printed) == ["deleted"]
    assert len(printed.splitlines()) == 1
    assert not path.exists()
    assert neighbour.exists()


ELSEWHERE: dict[str, Callable[[Path], str]] = {
    "one folder up": lambda root: "../README.md",
    "far up": lambda root: "../" * 40 + str(root.parent / "README.md").lstrip("/"),
    "absolute": lambda root: str(root.parent / "README.md"),
    "the root and up again": lambda root: f"{root}/../README.md",
    "down and up": lambda root: "sub/../../README.md",
    "prefix twin": lambda root: str(root.parent / "jobs2" / "twin.txt"),
    "prefix twin, relative": lambda root: "../jobs2/twin.txt",
    "doubled slashes": lambda root: f"//{str(root.parent)[1:]}//README.md",
    "the folder itself": lambda root: str(root),
    "the folder itself, relative": lambda root: ".",
    "a folder in it": lambda root: "sub",
    "nothing": lambda root: "",
    "a slash": lambda root: "/",
    "4,096 characters": lambda root: "n" * 4096,
    "4,096 characters of folders": lambda root: "n/" * 2048 + "n",
    "a URL": lambda root: f"file://{root.parent}/README.md",
    "a tilde": lambda root: "~/README.md",
    "JSON": lambda root: '{"path": "../README.md"}',
}


@pytest.mark.parametrize("item", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_an_item_that_points_elsewhere_deletes_nothing(q: Queue, yard: Path, item: Callable[[Path], str]) -> None:
    (yard / "sub" / "kept").touch()
    for status in ("done", "failed", "cancelled"):
        over(q, item(yard), status)
    before = _tree(yard.parent)
    for directory in (".", "/", "jobs"):
        assert "deleted" not in outcomes(delete(directory=directory))
    assert _tree(yard.parent) == before


def _symlink_to_a_file(root: Path) -> str:
    (root / "link").symlink_to(root.parent / "outside" / "victim.txt")
    return "link"


def _symlink_to_a_file_inside(root: Path) -> str:
    (root / "inside.txt").touch()
    (root / "link").symlink_to("inside.txt")
    return "link"


def _through_a_linked_folder(root: Path) -> str:
    (root / "linked").symlink_to(root.parent / "outside")
    return "linked/victim.txt"


def _through_a_linked_folder_and_up(root: Path) -> str:
    (root / "linked").symlink_to(root.parent / "outside")
    return "linked/../victim.txt"


def _dangling_link(root: Path) -> str:
    (root / "link").symlink_to("nowhere")
    return "link"


def _hard_link(root: Path) -> str:
    os.link(root.parent / "outside" / "victim.txt", root / "hard")
    return "hard"


def _fifo(root: Path) -> str:
    os.mkfifo(root / "fifo")
    return "fifo"


def _socket(root: Path) -> str:
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    return "socket"


def _folder(root: Path) -> str:
    (root / "folder").mkdir()
    return "folder"


def _trailing_slash(root: Path) -> str:
    (root / "sub" / "kept.txt").touch()
    return "sub/"


NO_PLAIN_FILE = [_symlink_to_a_file, _symlink_to_a_file_inside, _through_a_linked_folder,
                 _through_a_linked_folder_and_up, _dangling_link, _hard_link, _fifo, _socket, _folder,
                 _trailing_slash]  # fmt: skip


@pytest.mark.parametrize("plant", NO_PLAIN_FILE, ids=lambda plant: plant.__name__.strip("_").replace("_", " "))
def test_what_is_no_plain_file_of_ours_stays(q: Queue, yard: Path, plant: Callable[[Path], str]) -> None:
    over(q, plant(yard))
    before = _tree(yard.parent)
    assert "deleted" not in outcomes(delete())
    assert _tree(yard.parent) == before


def test_a_device_stays(q: Queue, yard: Path) -> None:
    if os.geteuid():
        pytest.skip("only root makes devices")
    os.mknod(yard / "null", 0o600 | 0o020000, os.makedev(1, 3))
    over(q, "null")
    assert "deleted" not in outcomes(delete())
    assert (yard / "null").exists()


@pytest.mark.parametrize("live", ["pending", "processing"])
@pytest.mark.parametrize("spelling", ["the same", "relative beside absolute", "by detour", "doubled slash"])
def test_a_file_that_a_live_job_names_stays(q: Queue, yard: Path, live: str, spelling: str) -> None:
    path = yard / "job.txt"
    path.touch()
    over(q, str(path))
    q.enqueue({"the same": str(path), "relative beside absolute": "job.txt", "by detour": f"{yard}/sub/../job.txt",
               "doubled slash": f"{yard}//job.txt"}[spelling])  # fmt: skip
    if live == "processing":
        assert q.dequeue("worker@host:1:aaaa") is not None
    assert "deleted" not in outcomes(delete())
    assert path.exists()


def test_a_file_that_no_job_names_stays(q: Queue, yard: Path) -> None:
    (yard / "stranger.txt").touch()
    assert delete() == ""
    assert (yard / "stranger.txt").exists()


def test_the_file_of_a_job_that_was_deleted_stays(q: Queue, yard: Path) -> None:
    (yard / "job.txt").touch()
    over(q, "job.txt")
    ok("delete-db-jobs", "--yes")
    assert delete() == ""
    assert (yard / "job.txt").exists()


def test_a_dry_run_deletes_nothing_and_names_the_same_files(q: Queue, yard: Path) -> None:
    for name in ("a", "b", "sub/c"):
        (yard / name).touch()
        over(q, name)
    over(q, _hard_link(yard))
    before = _tree(yard.parent)
    foretold = invoke("delete-job-files", "--directory", ".", "--dry-run")
    assert foretold.exit_code == 0
    assert "[y/N]" not in foretold.output
    assert _tree(yard.parent) == before
    assert [
        line.replace("would be deleted", "deleted") for line in foretold.stdout.splitlines()
    ] == delete().splitlines()


def test_only_files_below_the_directory_are_meant(q: Queue, yard: Path) -> None:
    for name in ("a", "sub/b"):
        (yard / name).touch()
        over(q, name)
    delete(directory="jobs/sub")
    assert (yard / "a").exists()
    assert not (yard / "sub" / "b").exists()


def test_a_file_that_is_gone_is_no_news(q: Queue, yard: Path) -> None:
    """Every done job of the past would be reported again and again."""
    (yard / "job.txt").touch()
    over(q, "job.txt")
    delete()
    again = invoke("delete-job-files", "--directory", ".", "--yes")
    assert (again.exit_code, again.stdout) == (0, "")
    assert "0 files" in again.stderr


def test_thousands_of_jobs_are_gone_through(q: Queue, yard: Path) -> None:
    names = [f"{n}.txt" for n in range(1_200)]
    for name in names:
        (yard / name).touch()
    q.enqueue_many(names)
    while jobs := q.dequeue_many("worker@host:1:aaaa", limit=500):
        q.complete_many(jobs)
    assert len(delete().splitlines()) == 1_200
    assert os.listdir(yard) == ["sub"]


def test_a_job_folder_that_is_a_link_of_the_operators_choosing_works(
    q: Queue, yard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").symlink_to("jobs")
    monkeypatch.setenv("QUEUE_JOB_DIR", "elsewhere")
    (yard / "job.txt").touch()
    over(q, "job.txt")
    assert outcomes(delete()) == ["deleted"]
    assert not (yard / "job.txt").exists()


SWAPPER = """
import os, sys
os.chdir(sys.argv[1])
print("ready", flush=True)
while True:
    os.rename("swapped", "aside")
    os.symlink("../outside", "swapped")
    os.unlink("swapped")
    os.rename("aside", "swapped")
"""


def test_a_folder_swapped_for_a_link_while_it_is_walked_leads_nowhere(q: Queue, yard: Path) -> None:
    (yard / "swapped").mkdir()
    over(q, "swapped/victim.txt")
    swapper = subprocess.Popen([sys.executable, "-c", SWAPPER, str(yard)], stdout=subprocess.PIPE, env=environment())
    assert swapper.stdout is not None
    try:
        assert swapper.stdout.readline() == b"ready\n"
        reasons = set()
        for _ in range(400):
            for report in cleanup.job_files(q, yard.parent, dry_run=False):  # none while there is no such path
                assert not report.deleted
                reasons.add(report.outcome)
            time.sleep(0)
    finally:
        swapper.kill()
        swapper.wait()
        swapper.stdout.close()
    assert len(reasons) > 1, f"the race was never met: {reasons}"


def _tree(folder: Path) -> list[tuple[str, int, int]]:
    """Return every path below a folder but the database's, with its inode and size."""
    return sorted(
        (str(path), path.lstat().st_ino, path.lstat().st_size)
        for path in folder.rglob("*")
        if not path.name.startswith("queue.db")
    )
