"""Soak: a kill storm on each database, then every acknowledged job is accounted for: ``make soak``.

It exits 0 when no invariant is broken, and prints figures. ``make soak ARGS="--kills 5000 --database sqlite"``;
docs/reliability.md says what is checked. With ``--keep FOLDER`` the histories stay, for ``python -m proof.verifier``.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))  # where the tests' own imports begin

from proof import storm  # noqa: E402
from support.databases import Databases, OnServer  # noqa: E402
from support.servers import KINDS  # noqa: E402

NAMES = ["sqlite", *KINDS]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", action="append", choices=NAMES, help="one of these (repeatable); all")
    storm.options(parser)
    parser.set_defaults(kills=10_000, seconds=600, every=0.1)
    parser.add_argument("--keep", type=Path, help="folder for the histories, which are thrown away otherwise")
    chosen = parser.parse_args()
    broken = 0
    with ExitStack() as stack:
        folder = (chosen.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        databases = Databases(folder)
        stack.callback(databases.close)
        for name in chosen.database or NAMES:
            if name in KINDS and not KINDS[name].exists():
                print(f"{name}: not here, skipped")
                continue
            broken += _rage(name, databases, folder / f"{name}-{time.time_ns()}", chosen)
    return min(1, broken)


def _rage(name: str, databases: Databases, folder: Path, chosen: argparse.Namespace) -> int:
    database = databases[name]
    assert name == "sqlite" or isinstance(database, OnServer)
    print(f"--- {name}", flush=True)
    options = [f"--{name}={value}" for name, value in vars(chosen).items() if name in storm.OPTIONS and value]
    command = [sys.executable, "-m", "proof.storm", str(folder), *options]
    return subprocess.run(command, cwd=TESTS, env=os.environ | {"PROOF_TARGET": database.apart()}).returncode


if __name__ == "__main__":
    sys.exit(main())
