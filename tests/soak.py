"""Soak: storms of kills, then everything that was acknowledged is accounted for: ``make soak``.

It exits 0 when no invariant is broken, and prints figures. ``make soak ARGS="--of jobs --kills 5000 --on sqlite"``;
docs/reliability.md says what is checked. With ``--sum FILE`` figures are kept there, so that short runs add up to
a long one; with ``--keep FOLDER`` the histories stay, for ``python -m proof.verifier``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))  # where the tests' own imports begin

from proof.figures import RUN, together, told  # noqa: E402
from proof.nemesis import Plan, options  # noqa: E402
from support.databases import Databases  # noqa: E402
from support.servers import KINDS  # noqa: E402
from support.shard_servers import STORES  # noqa: E402

DATABASES = ["sqlite", *KINDS]
SPOOL = "spool"
PLACES = {"jobs": DATABASES, "batches": [SPOOL], "shards": [*DATABASES, *STORES]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--of", action="append", choices=PLACES, help="what the storm is on (repeatable); all")
    names = [*DATABASES, *STORES, SPOOL]
    parser.add_argument("--on", action="append", choices=names, help="one of these places (repeatable); all that are")
    options(parser)
    parser.set_defaults(kills=10_000, seconds=600, every=0.1)
    parser.add_argument("--sum", type=Path, help="file that the figures are added to, and of which the sums are shown")
    parser.add_argument("--keep", type=Path, help="folder for the histories, which are thrown away otherwise")
    chosen = parser.parse_args()
    broken = 0
    with ExitStack() as stack:
        folder = (chosen.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        places = Places(folder, stack)
        for of in chosen.of or PLACES:
            for name in PLACES[of]:
                if name not in (chosen.on or PLACES[of]):
                    continue
                print(f"--- {of} on {name}", flush=True)
                if not places.exists(name):
                    print("not here, skipped")
                    continue
                broken += _rage(of, name, places[name], folder / f"{of}-{name}-{time.time_ns()}", chosen)
    if chosen.sum and chosen.sum.exists():
        _show_sums(chosen.sum)
    return min(1, broken)


class Places:
    """Where storms can be: a database, a store or a folder for each."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._databases = Databases(folder)
        stack.callback(self._databases.close)

    def exists(self, name: str) -> bool:
        servers: dict[str, Callable[[], Any]] = {**KINDS, **STORES}
        return name not in servers or servers[name].exists()  # type: ignore[attr-defined]

    def __getitem__(self, name: str) -> str:
        """Return an empty one's address."""
        if name == SPOOL:
            return tempfile.mkdtemp(dir=self._folder)
        if name in STORES:
            return str(self._stack.enter_context(STORES[name]()).url("0"))
        return self._databases[name].apart()


def _rage(of: str, name: str, target: str, folder: Path, chosen: argparse.Namespace) -> int:
    asked = {field.name: getattr(chosen, field.name) for field in fields(Plan)}
    arguments = [f"--{option}={value}" for option, value in asked.items() if value is not None]
    command = [sys.executable, "-m", "proof.storm", of, str(folder), *arguments]
    code = subprocess.run(command, cwd=TESTS, env=os.environ | {"PROOF_TARGET": target}).returncode
    if chosen.sum and (folder / RUN).exists():
        run = {"of": of, "on": name, "figures": json.loads((folder / RUN).read_text())}
        with chosen.sum.open("a") as file:
            file.write(json.dumps(run) + "\n")
    return code


def _show_sums(path: Path) -> None:
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in path.read_text().splitlines():
        run = json.loads(line)
        runs[f"{run['of']} on {run['on']}"].append(run["figures"])
    for what, found in sorted(runs.items()):
        print(f"=== {what}, {len(found)} runs together")
        print(told(together(found)))


if __name__ == "__main__":
    sys.exit(main())
