"""Storm: ``python -m proof.storm jobs FOLDER TARGET`` runs one on something empty, from ``tests/``.

The URL of a server is better given as PROOF_TARGET, for it has a password.
"""

import argparse
import os
import sys
from dataclasses import fields
from pathlib import Path

from .batch_storm import BatchStorm
from .job_storm import JobStorm
from .nemesis import Plan, Storm, options
from .shard_storm import ShardStorm

STORMS: dict[str, type[Storm]] = {storm.of: storm for storm in (JobStorm, BatchStorm, ShardStorm)}


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill at random, then verify.")
    parser.add_argument("of", choices=STORMS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", nargs="?", default=os.environ.get("PROOF_TARGET"))
    options(parser)
    chosen = parser.parse_args()
    plan = Plan(**{field.name: getattr(chosen, field.name) for field in fields(Plan)})
    return min(1, STORMS[chosen.of](chosen.folder, chosen.target, plan).run())


if __name__ == "__main__":
    sys.exit(main())
