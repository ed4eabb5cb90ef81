"""Reading: the histories and the final table, sorted by job. Nothing here knows persistq."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .history import FINAL, META, SUFFIX

NEVER = float("inf")
NANO = 1_000_000_000
REOPENS = ("resubmit", "delete")
"""Decisions after which a job may be performed anew, or is no more."""


class Unreadable(Exception):
    """The folder does not hold what an honest run leaves behind."""


@dataclass(slots=True)
class Step:
    """What one actor did to one job between two moments; it may have done so only if it is not ``sure``."""

    kind: str
    job: int
    fence: int
    began: float
    ended: float
    sure: bool
    actor: str
    info: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        at = "in the end" if self.began == NEVER else f"{self.began / NANO:.6f}"
        took = f"+{(self.ended - self.began) / 1e6:.3f} ms" if self.ended < NEVER else ""
        took = "never answered" if self.began < NEVER and not took else took
        more = " ".join(f"{name}={value!r:.60}" for name, value in self.info.items() if value not in (None, 0))
        fence = f" fence {self.fence}" if self.fence else ""
        return f"{at:>14} {took:>15}  {self.actor}: {self.kind} job {self.job}{fence} {more}".rstrip()


@dataclass(slots=True)
class Call:
    """One call of one actor."""

    actor: str
    op: str
    began: float
    asked: dict[str, Any]
    ended: float = NEVER
    outcome: str = "unknown"
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def sure(self) -> bool:
        return self.outcome == "ok"

    def step(self, kind: str, job: int, fence: int = 0, **info: Any) -> Step:
        return Step(kind, job, fence, self.began, self.ended, self.sure, self.actor, info)


@dataclass(slots=True)
class Story:
    """All that is known of one job."""

    id: int
    #: Every one that is sure, by fence.
    claims: list[Step] = field(default_factory=list)
    #: By the fence they were made with: done, fail, permanent, release.
    settles: dict[int, list[Step]] = field(default_factory=lambda: defaultdict(list))
    renewals: dict[int, list[Step]] = field(default_factory=lambda: defaultdict(list))
    effects: list[Step] = field(default_factory=list)
    #: What a person decided: cancel, assign, resubmit, delete.
    decisions: list[Step] = field(default_factory=list)
    #: What a watcher saw, by time.
    sightings: list[Step] = field(default_factory=list)
    #: Events that say a lease expired.
    expiries: list[dict[str, Any]] = field(default_factory=list)
    #: How many events there are of any kind.
    events: int = 0
    row: dict[str, Any] | None = None

    @property
    def reopened(self) -> bool:
        """Whether a person may have begun it anew or deleted it."""
        return any(step.kind in REOPENS for step in self.decisions)

    def settled(self, fence: int, *kinds: str, sure: bool = False) -> list[Step]:
        """Return the settlings with a fence, of these kinds or of any; those that are not sure as well, unless told."""
        found = self.settles.get(fence, ())
        return [one for one in found if (not kinds or one.kind in kinds) and (one.sure or not sure)]

    def final(self) -> Step:
        """Return the row as a step, for a counter-example."""
        row = self.row or {"status": "gone"}
        info = {name: row.get(name) for name in ("status", "attempts", "max_attempts", "item")}
        return Step("is", self.id, row.get("fence", 0), NEVER, NEVER, True, FINAL, info)


class World:
    """One run: what everybody did, and what was there in the end."""

    def __init__(self, meta: dict[str, Any]) -> None:
        self.meta = meta
        self.lease = meta.get("lease", 60.0) * NANO
        #: By how much two processes' ideas of the database's time may differ.
        self.skew = meta.get("skew", 0.0) * NANO
        self.calls: list[Call] = []
        self.jobs: dict[int, Story] = {}
        #: One for each job of each enqueue; its id is 0 when it was not told.
        self.enqueues: list[Step] = []
        #: Enqueues that failed for certain.
        self.refused: list[Step] = []
        #: Actors and when they were killed.
        self.killed: dict[str, float] = {}
        self.notes: list[dict[str, Any]] = []
        self.tallies: list[dict[str, Any]] = []
        self.faults: list[str] = []

    def story(self, job: int) -> Story:
        return self.jobs.setdefault(job, Story(job))


def read(folder: Path) -> World:
    """Return what the folder tells.

    Raises:
        Unreadable: a line is damaged where no kill can have damaged it, or there is no end.
    """
    world = World(json.loads((folder / META).read_text()))
    paths = sorted(path for path in folder.glob(f"*{SUFFIX}") if path.stem != FINAL)
    pages = {path.stem: list(lines(path)) for path in paths}
    for page in pages.values():
        _find_kills(world, page)
    for actor, page in pages.items():
        _read_actor(world, actor, page)
    _read_final(world, folder / f"{FINAL}{SUFFIX}")
    world.calls.sort(key=lambda call: call.began)
    for call in world.calls:
        _TAKES.get(call.op, _take_nothing)(world, call)
    for story in world.jobs.values():
        story.claims.sort(key=lambda claim: claim.fence)
        story.effects.sort(key=lambda effect: effect.began)
    return world


def lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """Yield the records of a file, and None for a torn last line.

    Raises:
        Unreadable: another line is damaged.
    """
    *whole, rest = path.read_bytes().split(b"\n")
    for number, line in enumerate(whole, 1):
        try:
            yield json.loads(line)
        except ValueError:
            raise Unreadable(f"{path.name}, line {number} is damaged: {line[:80]!r}") from None
    if rest:
        yield None


def _find_kills(world: World, page: list[dict[str, Any] | None]) -> None:
    for record in page:
        if record and record.get("op") == "kill":
            world.killed[record["actor"]] = record["t"]


def _read_actor(world: World, actor: str, page: list[dict[str, Any] | None]) -> None:
    calls: dict[int, Call] = {}
    for record in page:
        if record is None:
            if actor not in world.killed:
                raise Unreadable(f"the last line of {actor} is torn, and nobody killed it")
        elif "c" not in record:
            _take_note(world, actor, record)
        elif record["is"] == "invoke":
            call = calls[record["c"]] = Call(actor, record["op"], record["t"], record)
            world.calls.append(call)
        else:
            call = calls[record["c"]]
            call.outcome, call.told = record["is"], record
            call.ended = NEVER if call.outcome == "unknown" else record["t"]


def _take_note(world: World, actor: str, record: dict[str, Any]) -> None:
    if record["op"] == "effect":
        at = record["t"]
        effect = Step("effect", record["job"], record["fence"], at, at, True, actor, {"item": record.get("item")})
        world.story(record["job"]).effects.append(effect)
    else:
        world.notes.append(record)


def _read_final(world: World, path: Path) -> None:
    if not path.exists():
        raise Unreadable("there is no final table")
    ended = False
    for record in lines(path):
        match (record or {}).get("is"):
            case "job" if record:
                world.story(record["id"]).row = record
            case "event" if record:
                story = world.story(record["job"])
                story.events += 1
                if record.get("expired"):
                    story.expiries.append(record)
            case "tally" if record:
                world.tallies.append(record)
            case "fault" if record:
                world.faults.append(record["what"])
            case "end":
                ended = True
    if not ended:
        raise Unreadable("the final table is not complete")


def _take_enqueue(world: World, call: Call) -> None:
    ids = call.told.get("ids") or [0] * len(call.asked["jobs"])
    for new, job in zip(call.asked["jobs"], ids, strict=True):
        step = call.step("enqueue", job, **new)
        (world.refused if call.outcome == "fail" else world.enqueues).append(step)


def _take_exchange(world: World, call: Call) -> None:
    if call.outcome == "fail":
        return
    lost = {(job, fence) for job, fence in call.told.get("lost", ())}
    for job, fence, kind, *delay in call.asked.get("settled", ()):
        if (job, fence) not in lost:
            world.story(job).settles[fence].append(call.step(kind, job, fence, delay=delay[0] if delay else None))
    for job, fence in call.asked.get("renew", ()):
        if (job, fence) not in lost:
            world.story(job).renewals[fence].append(call.step("renew", job, fence))
    for claim in call.told.get("claimed", ()):
        info = {name: claim[name] for name in ("item", "queue", "priority", "attempts", "max_attempts")}
        world.story(claim["id"]).claims.append(call.step("claim", claim["id"], claim["fence"], **info))


def _take_decision(world: World, call: Call) -> None:
    if call.outcome != "fail":
        world.story(call.asked["job"]).decisions.append(call.step(call.asked["verb"], call.asked["job"]))


def _take_sample(world: World, call: Call) -> None:
    for job, status, fence in call.told.get("rows", ()):
        world.story(job).sightings.append(call.step("sees", job, fence, status=status))


def _take_nothing(_world: World, _call: Call) -> None:
    return


_TAKES = {
    "enqueue": _take_enqueue,
    "exchange": _take_exchange,
    "decide": _take_decision,
    "sample": _take_sample,
}
