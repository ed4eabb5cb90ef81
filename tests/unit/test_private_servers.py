"""The servers that the tests start for themselves: nothing of them outlives who started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from support.databases import each_server
from support.servers import KINDS

pytestmark = each_server

STARTER = """
import sys, time
from support.servers import KINDS
with KINDS[sys.argv[1]]() as server:
    print(server.pid, server.folder, flush=True)
    time.sleep(600)
"""


def test_a_server_ends_with_its_starter_and_its_folder_is_removed(kind: str) -> None:
    tests = Path(__file__).parents[1]
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, kind], env=os.environ | {"PYTHONPATH": str(tests)},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with starter:
        assert starter.stdout is not None
        pid, folder = starter.stdout.readline().split()
        assert Path(f"/proc/{pid}").exists() and Path(folder).is_dir()
        starter.kill()
        starter.wait(30)
    end = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() or Path(folder).exists():
        assert time.monotonic() < end, "the server lives on"
        time.sleep(0.01)


def test_a_server_keeps_its_port_and_its_data_when_it_is_restarted(kind: str) -> None:
    with KINDS[kind]() as server:
        server.create("queue_kept")
        port = server.port
        for how in (None, signal.SIGKILL):
            server.restart(how)
            assert server.port == port
            assert server.run("SELECT 1", database="queue_kept") == [(1,)]


def test_what_it_needs_can_be_reached_by_nobody_else(kind: str) -> None:
    with KINDS[kind]() as server:
        server.create("queue_private")
        assert server.port not in (3306, 5432)
        data = server.folder / "data"
        assert data.stat().st_mode & 0o007 == 0
        url = server.url("queue_private")
        assert url.startswith(f"{server.scheme}://worker:") and "@127.0.0.1:" in url
