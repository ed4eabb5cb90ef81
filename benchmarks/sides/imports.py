"""The wall time of a Python that imports one thing and ends."""

import statistics
import subprocess
import sys
import time

from common import Work, main, workload


def taken(work: Work, statement: str) -> dict:
    """Return the median of a few starts."""
    found = []
    for _ in range(work.jobs):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)  # noqa: S603
        found.append((time.perf_counter() - began) * 1000)
    return {"ms": statistics.median(found)}


@workload
def import_nothing(work: Work) -> dict:
    return taken(work, "pass")


@workload
def import_sqlalchemy(work: Work) -> dict:
    return taken(work, "import sqlalchemy")


@workload
def import_persistq(work: Work) -> dict:
    return taken(work, "import persistq")


@workload
def import_connect(work: Work) -> dict:
    return taken(work, "import persistq; persistq.connect")


if __name__ == "__main__":
    sys.exit(main())
