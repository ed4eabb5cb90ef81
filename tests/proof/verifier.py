"""Verifier: reads what a run left behind and says whether it kept every promise: ``python -m proof.verifier FOLDER``.

It imports nothing of persistq. Exit code 0: every invariant holds. 1: one does not, and the shortest
counter-example of each is printed. 2: the folder cannot be read.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import batches, conduct, invariants, shards
from .figures import Figures, figures, told
from .history import META
from .invariants import Violation
from .reading import Unreadable, World, read

CHECKS = (*invariants.CHECKS, *conduct.CHECKS)


def violations(world: World) -> list[Violation]:
    """Return every way in which the run broke an invariant, those that take the fewest steps to show first."""
    found = [violation for check in CHECKS for violation in check(world)]
    return sorted(found, key=lambda violation: (int(violation.invariant[1:]), len(violation.steps)))


def report(found: Sequence[Violation]) -> str:
    """Return the shortest counter-example of each broken invariant, and how many more there are."""
    first = {violation.invariant: violation for violation in reversed(found)}
    shown = [str(violation) for violation in reversed(first.values())]
    rest = len(found) - len(first)
    return "\n".join([*shown, *([f"and {rest:,} more"] if rest else [])])


_OTHERS: dict[str, Callable[[Path], tuple[Figures, list[Violation]]]] = {
    "batches": batches.judge,
    "shards": shards.judge,
}


def judge(folder: Path) -> tuple[Figures, list[Violation]]:
    """Return the figures of the run that left its histories in a folder, and the ways in which it broke an invariant.

    Raises:
        Unreadable: it does not hold what an honest run leaves behind.
    """
    other = _OTHERS.get(json.loads((folder / META).read_text()).get("of"))
    if other:
        return other(folder)
    world = read(folder)
    return figures(world), violations(world)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m proof.verifier FOLDER", file=sys.stderr)
        return 2
    try:
        shown, found = judge(Path(arguments[0]))
    except (Unreadable, OSError, ValueError, KeyError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(told(shown))
    print(report(found) if found else "every invariant holds")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
