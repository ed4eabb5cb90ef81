"""The producer process: signals, settings, outages."""

import signal
import time
from pathlib import Path

import pytest

from .yard import Process, Yard, eventually


def test_count_files_and_jobs_agree(make_yard):
    yard = make_yard()
    assert yard.producer("--count", "5", "--interval", "0").wait() == 0
    assert _items(yard) == _files(yard)
    assert len(_files(yard)) == 5
    assert all(Path(item).is_absolute() for item in _items(yard))
    assert all(Path(path).read_text().strip() for path in _files(yard))
    assert {Path(path).stat().st_mode & 0o777 for path in _files(yard)} == {0o600}


def test_sighup_reads_env_again(make_yard):
    yard = make_yard()
    _write_env(yard, "INTERVAL_TIME = 3600")
    producer = yard.producer()
    eventually(lambda: yard.q.counts()["pending"] == 1, "the first job is there")
    _write_env(yard, "INTERVAL_TIME = 0.02")
    producer.send(signal.SIGHUP)
    eventually(lambda: yard.q.counts()["pending"] >= 10, "jobs come faster")
    assert producer.lines("settings read again: one job every 0.02 s")
    _end(producer)


def test_sighup_with_a_bad_value_keeps_the_old_settings(make_yard):
    yard = make_yard()
    _write_env(yard, "INTERVAL_TIME=0.02")
    producer = yard.producer()
    eventually(lambda: yard.q.counts()["pending"], "the first job is there")
    _write_env(yard, "INTERVAL_TIME=soon")
    producer.send(signal.SIGHUP)
    (complaint,) = eventually(lambda: producer.lines("the new settings are not used"), "it complains")
    assert "INTERVAL_TIME" in complaint
    seen = yard.q.counts()["pending"]
    eventually(lambda: yard.q.counts()["pending"] > seen + 5, "it goes on")
    _end(producer)


def test_sigterm_ends_cleanly_with_every_file_enqueued(make_yard):
    yard = make_yard()
    producer = yard.producer("--interval", "0")
    eventually(lambda: yard.q.counts()["pending"] >= 20, "it is busy")
    _end(producer)
    assert _items(yard) == _files(yard)
    assert producer.lines(f"stopped after {len(_files(yard))} jobs")


def test_sigterm_ends_a_long_rest(make_yard):
    yard = make_yard(interval_time=3600)
    producer = yard.producer()
    eventually(lambda: yard.q.counts()["pending"], "it rests")
    _end(producer)


def test_an_outage_delays_one_file_and_makes_no_second(make_yard):
    yard = make_yard(queue_busy_seconds=0.1)
    yard.q.enqueue("an existing database")
    holder = yard.lock()
    producer = yard.producer("--count", "1")
    eventually(lambda: len(producer.lines("was not enqueued yet")) >= 2, "it tries again")
    assert len(_files(yard)) == 1
    holder.hang_up()
    assert producer.wait() == 0
    assert len(_files(yard)) == 1
    assert [job.item for job in yard.jobs()] == ["an existing database", *_files(yard)]


def test_sigterm_during_an_outage_ends_too(make_yard):
    interval = 10
    yard = make_yard(queue_busy_seconds=0.1, interval_time=interval)
    yard.q.enqueue("an existing database")
    holder = yard.lock()
    producer = yard.producer()
    eventually(lambda: producer.lines("was not enqueued yet"), "it notices")
    began = time.monotonic()
    _end(producer)
    took = time.monotonic() - began
    holder.hang_up()
    assert took < interval / 2, f"it rested for {took:.1f} s after the signal"


def test_a_folder_that_cannot_be_written_is_said_patiently(make_yard):
    yard = make_yard(queue_job_dir="file/jobs")
    (yard.folder / "file").touch()
    producer = yard.producer("--interval", "0")
    eventually(lambda: producer.lines("no job file could be written"), "it says so")
    used = producer.cpu_seconds()
    yard.q.enqueue("something to do meanwhile")
    eventually(lambda: len(producer.lines("no job file could be written")) >= 3, "it says so again")
    lines = len(producer.lines("no job file could be written"))
    assert lines < 100, f"{lines} lines and {producer.cpu_seconds() - used:.2f} s of processor in a moment"
    _end(producer)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("INTERVAL_TIME=soon", ["INTERVAL_TIME"]),
        ("MAX_ATTEMPTS=0\nTIMEOUT_SECONDS=-1", ["MAX_ATTEMPTS", "TIMEOUT_SECONDS"]),
        ("QUEUE_DB_URL=oracle://scott:tiger@host/db", ["oracle"]),
        ("QUEUE_DB_URL=sqlite://", ["file"]),
        ("QUEUE_DURABILITY=sometimes", ["QUEUE_DURABILITY"]),
        (b"QUEUE_NAME=\xff\xfe", [".env"]),
    ],
)
def test_a_bad_setting_is_one_clear_line_and_78(make_yard, text, names):
    yard = make_yard()
    _write_env(yard, text)
    for process in [start(queue_db_file=None) for start in (yard.producer, yard.consumer, yard.maintenance)]:
        assert process.wait() == 78, process.err
        (line,) = process.err.splitlines()
        assert all(name in line for name in names)
        assert "tiger" not in line
    assert not (yard.folder / "jobs").exists()


def _write_env(yard: Yard, text: str | bytes) -> None:
    (yard.folder / ".env").write_bytes(text if isinstance(text, bytes) else text.encode())


def _end(producer: Process) -> None:
    producer.send(signal.SIGTERM)
    assert producer.wait() == 0


def _items(yard: Yard) -> list[str]:
    return sorted(job.item for job in yard.jobs())


def _files(yard: Yard) -> list[str]:
    return sorted(map(str, (yard.folder / "jobs").iterdir()))
