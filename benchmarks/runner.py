"""Lets the sides of a case take turns, each run a fresh process on a fresh database."""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import servers
from .cases import Case, Side
from .servers import Server, Unavailable
from .venvs import PLACE, Environments

SCRIPTS = Path(__file__).parent / "sides"
FILL_SECONDS = 1_800.0
SLACK_SECONDS = 240.0
QUICK_ROWS = 100_000


@dataclass
class Figures:
    """What one case brought: the figures of every run, and why a side has none."""

    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    #: The machine's load and the time of an fsync in ms when the case began.
    load: float = 0.0
    fsync: float = 0.0


class Runner:
    """Runs cases; give it back with ``close`` so that its servers end."""

    def __init__(self, *, quick: bool, pythons: list[str], urls: Mapping[str, str | None], say: Callable[[str], None]):
        self._quick, self._urls, self._say = quick, urls, say
        self._environments = Environments(pythons)
        self._stack = contextlib.ExitStack()
        self._servers: dict[str, Server | Unavailable] = {}
        #: Name and version of every database and peer that took part.
        self.versions: dict[str, str] = {}
        data = PLACE / "data"
        data.mkdir(exist_ok=True)
        self._data = Path(tempfile.mkdtemp(prefix="run-", dir=data))
        self._data.chmod(0o755)

    def close(self) -> None:
        """End the servers and delete what the runs wrote."""
        self._stack.close()
        shutil.rmtree(self._data, ignore_errors=True)

    def run(self, case: Case, runs: int) -> Figures:
        """Run every side so many times, by turns, each round beginning with another one."""
        found = Figures(load=os.getloadavg()[0], fsync=_fsync(self._data))
        sides = [side for side in case.sides if not (self._quick and side.work.get("rows", 0) > QUICK_ROWS)]
        with contextlib.ExitStack() as kept:
            places: dict[str, tuple[Path, str]] = {}
            for number in range(min(runs, case.most_runs)):
                turn = number % len(sides)
                for side in sides[turn:] + sides[:turn]:
                    if side.name in found.failed:
                        continue
                    try:
                        result = self._once(case, side, kept, places)
                    except (Unavailable, RuntimeError, subprocess.TimeoutExpired) as error:
                        found.failed[side.name] = str(error).strip()
                        self._say(f"  {side.name}: {found.failed[side.name].splitlines()[-1]}")
                        continue
                    for key, value in result.items():
                        found.figures.setdefault(side.name, {}).setdefault(key, []).append(value)
                    self._say(f"  {side.name}: " + ", ".join(f"{key} {value:,.6g}" for key, value in result.items()))
        return found

    def _once(
        self, case: Case, side: Side, kept: contextlib.ExitStack, places: dict[str, tuple[Path, str]]
    ) -> dict[str, float]:
        python = self._environments.python(side.peer) if side.peer else sys.executable
        if side.peer and side.peer.name not in self.versions:
            self.versions[side.peer.name] = self._environments.version(side.peer)
        work = {**case.work, **side.work}
        if self._quick:
            work["jobs"], work["idle"] = max(10, work["jobs"] // 4), 5.0
        if not work.get("rows") or not case.growth:
            with contextlib.ExitStack() as stack:
                folder, url = self._place(case, stack)
                return self._script(python, side, side.workload, {**work, "folder": str(folder), "url": url})
        if side.name not in places:
            places[side.name] = folder, url = self._place(case, kept)
            began = time.monotonic()
            self._script(python, side, "fill", {**work, "folder": str(folder), "url": url}, FILL_SECONDS)
            self._say(f"  {side.name}: filled in {time.monotonic() - began:.0f} s")
        folder, url = places[side.name]
        return self._script(python, side, side.workload, {**work, "folder": str(folder), "url": url})

    def _place(self, case: Case, stack: contextlib.ExitStack) -> tuple[Path, str]:
        """Make a folder and, where there is a server, a database; both go when the stack is unwound."""
        folder = Path(tempfile.mkdtemp(dir=self._data))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        server = self._server(case.server)
        if server is None:
            return folder, ""
        url = server.create()
        stack.callback(server.drop, url)
        server.settle()
        return folder, url

    def _server(self, kind: str) -> Server | None:
        if kind not in ("postgres", "mariadb"):
            return None
        if kind not in self._servers:
            start = {"postgres": servers.postgres, "mariadb": servers.mariadb}[kind]
            try:
                self._servers[kind] = made = self._stack.enter_context(start(self._data, self._urls.get(kind)))
                self.versions[kind] = made.title
            except (Unavailable, OSError, subprocess.CalledProcessError) as error:
                self._servers[kind] = error if isinstance(error, Unavailable) else Unavailable(str(error))
        server = self._servers[kind]
        if isinstance(server, Unavailable):
            raise server
        return server

    def _script(
        self, python: str, side: Side, workload: str, work: Mapping[str, Any], most: float = 0
    ) -> dict[str, float]:
        """Run a side's script in a process group of its own, so that nothing of it is left."""
        limit = most or work.get("seconds", 0) + SLACK_SECONDS
        command = [python, str(SCRIPTS / f"{side.script}.py"), workload, json.dumps(work)]
        process = subprocess.Popen(  # noqa: S603
            command, cwd=work["folder"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            out, errors = process.communicate(timeout=limit)
        except BaseException:
            process.terminate()  # its own workers end with it
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=30)
            process.kill()
            raise
        if process.returncode:
            raise RuntimeError(errors.strip()[-1_500:] or f"exit code {process.returncode}")
        result: dict[str, float] = json.loads(out.strip().splitlines()[-1])
        return result


def _fsync(folder: Path) -> float:
    """Return the median time in ms to make 4 KiB durable."""
    took = []
    with (folder / "probe").open("wb") as file:
        for _ in range(100):
            began = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)
