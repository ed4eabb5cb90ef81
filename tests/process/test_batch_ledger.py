"""Ledger mode over the S3 protocol: bytes in an object store, ownership in PostgreSQL, consumers that die."""

import os
import socket
import subprocess
import sys
from collections import Counter

import pytest
from support.batches import fill

from persistq.batch import Ledger

from .yard import eventually

S3 = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=int(sys.argv[1]), verbose=False)
server.start()
print("ready", flush=True)
sys.stdin.read()
server.stop()
"""

APP = """
from persistq.batch import Ledger

ledger = Ledger("s3://bucket/batches", client_kwargs={"endpoint_url": os.environ["QUEUE_TEST_S3"]}, key="k", secret="s")


@persistq.task(max_attempts=5)
def perform(item):
    with ledger.opened(item) as items:
        for one in items:
            note(one)
            if one == 55 and me().attempts == 1:
                wait_for("gate")
"""


@pytest.fixture
def s3(monkeypatch):
    """The URL of an S3 server on loopback, with an empty bucket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", S3, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout and process.stdin
    assert process.stdout.readline() == b"ready\n"
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("QUEUE_TEST_S3", url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield url
    process.stdin.close()
    process.stdout.close()
    process.wait(30)


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_two_consumers_one_killed_amid_a_batch(make_yard, tmp_path, s3):
    yard = make_yard(timeout_seconds=2)
    yard.app(APP)
    ledger = Ledger("s3://bucket/batches", client_kwargs={"endpoint_url": s3}, key="k", secret="s")
    ledger._store._fs.mkdir("bucket")
    fill(tmp_path / "spool", range(100), max_items=20, block_items=5)
    enqueue = lambda url: yard.q.enqueue(url, task=None, unique_key=url)  # noqa: E731
    assert ledger.announce(tmp_path / "spool", "q", enqueue) == 5
    assert len(ledger._store._fs.find("bucket")) == 5

    surroundings = {name: os.environ[name] for name in ("QUEUE_TEST_S3", "AWS_DEFAULT_REGION")}
    consumers = [yard.consumer("--task", "perform", **surroundings) for _ in range(2)]
    eventually(lambda: "55" in yard.journal(), "one of them is amid the third batch")
    (holder,) = {job.consumer_id for job in yard.jobs() if job.status == "processing" and stuck(yard, job)}
    doomed = next(process for process in consumers if f":{process.pid}:" in holder)
    doomed.kill()
    eventually(yard.all_done, "the other performs what is left")
    seen = Counter(map(int, yard.journal()))
    assert set(seen) == set(range(100))
    assert sum(seen.values()) <= 120  # the one batch was performed twice
    left = [name for name in ledger._store._fs.find("bucket") if not name.endswith(".done")]
    assert left == []


def stuck(yard, job):
    """Return whether the job is the one with the item that waits: they were made in the order of their numbers."""
    return job.id == sorted(one.id for one in yard.jobs())[2]
