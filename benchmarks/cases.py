"""What a comparison is: a case, its sides, and what is asked of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .venvs import Peer

OURS = "persistq"
RAW = "raw"


@dataclass(frozen=True)
class Metric:
    """A figure that a side reports."""

    key: str
    #: What a row of it is called, after the case's own title.
    title: str = ""
    digits: int = 0
    lower_is_better: bool = False


RATE = Metric("rate")
BOUNDS = {100_000: 0.9, 1_000_000: 0.8}
"""What is left of the rate of an empty table, at least, beside so many rows."""


@dataclass(frozen=True)
class Side:
    """One contestant: a script of ``sides/`` and what it is to do."""

    name: str
    script: str
    workload: str
    #: Whose environment it runs in; None is ours.
    peer: Peer | None = None
    #: What differs from the case's work.
    work: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name without the number of rows: whose growth it is."""
        return self.name.partition(" @ ")[0]


@dataclass(frozen=True)
class Target:
    """What the figures should show: ``ours`` divided by ``theirs``, or ``ours`` alone, within a bound."""

    bound: float
    theirs: str | None = None
    ours: str = OURS
    at_most: bool = False
    metric: str = "rate"
    unit: str = ""


@dataclass(frozen=True)
class Case:
    """The same work, done by several sides in turns."""

    name: str
    group: str
    title: str
    #: ``sqlite``, ``postgres``, ``mariadb`` or ``none``.
    server: str
    sides: tuple[Side, ...]
    work: Mapping[str, Any]
    targets: tuple[Target, ...] = ()
    metrics: tuple[Metric, ...] = (RATE,)
    #: Cases that take minutes are run so often at most.
    most_runs: int = 100
    #: The sides are one queue with more and more rows.
    growth: bool = False


def at_least(bound: float, *theirs: str, ours: str = OURS) -> tuple[Target, ...]:
    """Ask for a rate of so many times theirs."""
    return tuple(Target(bound, name, ours) for name in theirs)


def growth(group: str, name: str, server: str, scripts: Mapping[str, str], batch: int, **work: Any) -> list[Case]:
    """Return what happens to claim and complete when there are many rows already."""
    cases = []
    for state in ("finished", "pending"):
        sides = [
            Side(f"{label} @ {rows:,}", script, "grown", work={"rows": rows})
            for label, script in scripts.items()
            for rows in (0, *BOUNDS)
        ]
        targets = [Target(bound, f"{OURS} @ 0", f"{OURS} @ {rows:,}") for rows, bound in BOUNDS.items()]
        cases.append(
            Case(
                f"{name}/growth-{state}-{batch}",
                f"{group}: claim and complete {batch} a turn beside {state} rows",
                f"{state} rows",
                server,
                tuple(sides),
                {"state": state, "batch": batch, **work},
                tuple(targets),
                growth=True,
            )
        )
    return cases
