"""Job files: no planted link, twin or odd name leads out of the folder, and no line stands twice."""

import errno
import os
import stat
from pathlib import Path

import pytest

from persistq import jobfiles
from persistq.jobfiles import NotAJobFile


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of the job files."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    return folder


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file outside that must stay as it is."""
    file = tmp_path / "victim.txt"
    file.write_text("precious\n")
    return file


def test_a_new_file_is_private_unique_and_complete(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "jobs"
    paths = [jobfiles.create(folder, f"text {number} ü\n") for number in range(20)]
    assert len(set(paths)) == 20
    for number, path in enumerate(paths):
        assert path.is_absolute()
        assert path.read_text("utf-8") == f"text {number} ü\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(folder.iterdir()) == sorted(paths)


def test_folders_are_made_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        jobfiles.create(tmp_path / "a" / "b", "x")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")] == [0o700, 0o700]


def test_a_relative_folder_gives_an_absolute_path(root: Path) -> None:
    assert jobfiles.create(Path("jobs"), "x").parent == root


def test_the_bytes_are_on_disk_before_the_name_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    path = jobfiles.create(root, "x")
    assert synced == ["file", "folder"]
    synced.clear()
    jobfiles.append_line(root, str(path), "line mark", "mark")
    assert synced == ["file", "folder"]


def test_a_full_disk_leaves_nothing_half_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = jobfiles.create(root, "old\n")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        jobfiles.create(root, "x")
    with pytest.raises(OSError, match="No space") as refusal:
        jobfiles.append_line(root, str(path), "line mark", "mark")
    assert not isinstance(refusal.value, NotAJobFile)
    assert list(root.iterdir()) == [path]
    assert path.read_text() == "old\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [("", "now job=1\n"), ("a\n", "a\nnow job=1\n"), ("a", "a\nnow job=1\n"), ("job=12 x\n", "job=12 x\nnow job=1\n")],
)
def test_a_line_is_appended_once(root: Path, before: str, after: str) -> None:
    path = root / "f"
    path.write_text(before)
    assert jobfiles.append_line(root, str(path), "now job=1", "job=1") is True
    assert jobfiles.append_line(root, str(path), "later job=1", "job=1") is False
    assert path.read_text() == after


def test_bytes_that_are_no_text_stay(root: Path) -> None:
    path = root / "f"
    path.write_bytes(b"\xff\0\n")
    jobfiles.append_line(root, str(path), "now job=1", "job=1")
    assert path.read_bytes() == b"\xff\0\nnow job=1\n"


def test_a_file_keeps_its_mode_and_gets_no_neighbour(root: Path) -> None:
    path = root / "f"
    path.write_text("x\n")
    path.chmod(0o640)
    jobfiles.append_line(root, str(path), "now job=1", "job=1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(root.iterdir()) == [path]


@pytest.mark.parametrize("length", [1, 200, 255])
def test_a_name_may_be_as_long_as_the_file_system_allows(root: Path, length: int) -> None:
    path = root / ("n" * length)
    path.write_text("x\n")
    assert jobfiles.append_line(root, str(path), "now job=1", "job=1") is True


@pytest.mark.parametrize("name", ["f", "sub/f", "./f", "sub/../f", "with space", "-rf", "ü", "new\nline"])
def test_a_file_inside_is_reached_by_relative_and_absolute_path(root: Path, name: str) -> None:
    (root / "sub").mkdir()
    (root / name).write_text("x")
    jobfiles.check(root, name)
    jobfiles.check(root, str(root / name))
    jobfiles.delete(root, name)
    assert not (root / name).exists()


def test_the_folder_itself_may_be_reached_by_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    (root / "f").write_text("x")
    jobfiles.check(tmp_path / "link", "f")
    jobfiles.check(tmp_path / "link", str(tmp_path / "link" / "f"))


BAD_NAMES = {
    "outside, absolute": "/etc/hostname",
    "outside, by the test's folder": "{tmp}/victim.txt",
    "outside, by dots": "../victim.txt",
    "outside, by dots within": "{root}/sub/../../victim.txt",
    "the folder's prefix twin": "{root}-twin/f",
    "the folder itself": "{root}",
    "a dot": ".",
    "nothing": "",
    "a folder inside": "sub",
    "a link": "link",
    "a link to a file inside": "inner-link",
    "a dangling link": "dangling",
    "a file behind a linked folder": "linked-folder/victim.txt",
    "a hard link": "hard",
    "a pipe": "pipe",
    "a file below a file": "plain/f",
    "a missing file": "missing",
    "a missing folder": "missing/f",
    "a NUL": "plain\0",
    "a newline": "plain\n",
    "a trailing slash on a link": "linked-folder/",
    "4096 characters": "n" * 4096,
    "256 characters": "n" * 256,
    "thousands of folders": "d/" * 5000 + "f",
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES.keys())
@pytest.mark.parametrize("act", ["check", "delete", "append"])
def test_what_is_no_job_file_is_refused_and_left_alone(
    act: str, name: str, root: Path, victim: Path, tmp_path: Path
) -> None:
    (root / "sub").mkdir()
    (root / "plain").write_text("x")
    (root / "link").symlink_to(victim)
    (root / "inner-link").symlink_to(root / "plain")
    (root / "dangling").symlink_to(tmp_path / "nowhere")
    (root / "linked-folder").symlink_to(tmp_path)
    os.link(victim, root / "hard")
    os.mkfifo(root / "pipe")
    (tmp_path / "jobs-twin").mkdir()
    (tmp_path / "jobs-twin" / "f").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    path = name.format(root=root, tmp=tmp_path) if "{" in name else name
    with pytest.raises(NotAJobFile):
        if act == "check":
            jobfiles.check(root, path)
        elif act == "delete":
            jobfiles.delete(root, path)
        else:
            jobfiles.append_line(root, path, "line mark", "mark")
    assert victim.read_text() == "precious\n"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_device_is_no_job_file() -> None:
    for act in (jobfiles.check, lambda root, name: jobfiles.append_line(root, name, "x mark", "mark")):
        with pytest.raises(NotAJobFile, match="plain file"):
            act(Path("/dev"), "null")


def test_another_user_s_file_is_no_job_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "f").write_text("x")
    monkeypatch.setattr(os, "geteuid", lambda: (root / "f").stat().st_uid + 1)
    with pytest.raises(NotAJobFile, match="another user"):
        jobfiles.delete(root, "f")


def test_a_file_past_the_bound_is_no_job_file(root: Path) -> None:
    with (root / "f").open("wb") as file:
        file.truncate(jobfiles.MAX_BYTES + 1)  # sparse
    with pytest.raises(NotAJobFile, match="larger"):
        jobfiles.append_line(root, "f", "x mark", "mark")


def test_no_refusal_leaves_a_descriptor_open(root: Path) -> None:
    (root / "sub").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for name in ("missing", "sub", "sub/missing", "../x"):
        with pytest.raises(NotAJobFile):
            jobfiles.append_line(root, name, "x mark", "mark")
    assert len(os.listdir("/proc/self/fd")) == before


def test_lines_of_jobs_that_stamp_one_file_at_once_all_stand(root: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    path = jobfiles.create(root, "text\n")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: jobfiles.append_line(root, str(path), f"line job={n}", f"job={n}"), range(40)))
    assert sorted(path.read_text().splitlines()[1:]) == sorted(f"line job={n}" for n in range(40))


def test_only_what_killed_consumers_left_is_swept(root: Path) -> None:
    old, young = root / ".persistq-tmp-1-old", root / ".persistq-tmp-2-young"
    for file in (old, young):
        file.touch()
    os.utime(old, (1_000, 1_000))
    assert jobfiles.sweep(root, 2_000) == 1
    assert [file.name for file in root.iterdir()] == [young.name]
    assert jobfiles.sweep(root / "nowhere", 2_000) == 0
