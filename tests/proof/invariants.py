"""Invariants: what must hold of every run, each as a function that yields the ways in which it does not.

The numbers are those of the table in docs/reliability.md. What an actor may have done counts for the
suspect: nothing is reported unless no history that fits the records could be right.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from .reading import NANO, NEVER, Step, Story, World

TERMINAL = ("done", "failed", "cancelled")
STATUSES = ("pending", "processing", *TERMINAL)
EVENTS_KEPT = 100
"""A job's older events are forgotten."""


@dataclass(slots=True)
class Violation:
    """One broken invariant, with the steps that prove it."""

    invariant: str
    what: str
    steps: list[Step]

    def __str__(self) -> str:
        shown = sorted(self.steps, key=lambda step: step.began)
        return "\n".join([f"{self.invariant} {self.what}", *(f"    {step}" for step in shown)])


Found = Iterator[Violation]


def no_loss(world: World) -> Found:
    """I1: an acknowledged job is there, and is done only if somebody performed it."""
    items = {new.info["item"] for new in world.enqueues}
    for new in world.enqueues:
        if not new.sure:
            continue
        story = world.story(new.job)
        if any(step.kind == "delete" for step in story.decisions):
            continue
        if story.row is None or _is_another(new, story.row["item"], items):
            what = f"job {new.job}, {new.info['item']!r:.60}, was acknowledged and is gone"
            yield Violation("I1", what, [new, *story.claims, story.final()])
    for story in world.jobs.values():
        row = story.row
        if row and row["status"] == "done" and not story.settled(row["fence"], "done"):
            what = f"job {story.id} is done, but nobody who held it at fence {row['fence']} said so"
            yield Violation("I1", what, [*story.claims, *story.settled(row["fence"]), story.final()])


def _is_another(new: Step, item: str, items: set[str]) -> bool:
    """Return whether a job's id was given to what somebody else enqueued. A key has the item that came first."""
    return not new.info.get("key") and item != new.info["item"] and item in items


def no_phantom(world: World) -> Found:
    """I2: what is there, and what is delivered, is what somebody enqueued, unchanged."""
    wanted: dict[str, list[Step]] = defaultdict(list)
    for new in (*world.enqueues, *world.refused):
        wanted[new.info["item"]].append(new)
    by_id = {new.job: new for new in world.enqueues if new.sure and not new.info.get("key")}
    for story in world.jobs.values():
        items = {step.info["item"] for step in (*story.claims, *story.effects) if step.info.get("item") is not None}
        items |= {story.row["item"]} if story.row else set()
        origin = by_id.get(story.id)
        for item in items:
            if item not in wanted or (origin and item != origin.info["item"]):
                what = f"job {story.id} holds {item!r:.60}, which nobody enqueued as this job"
                yield Violation("I2", what, [*([origin] if origin else []), *story.claims[:1], story.final()])
        if len(items) > 1:
            yield Violation("I2", f"the item of job {story.id} changed", [*story.claims, story.final()])


def definite_failure(world: World) -> Found:
    """I3: what an enqueue that failed for certain was to add never appears."""
    possible = {new.info["item"] for new in world.enqueues}
    refused = {new.info["item"]: new for new in world.refused if new.info["item"] not in possible}
    for story in world.jobs.values():
        for item in {step.info["item"] for step in story.claims} | ({story.row["item"]} if story.row else set()):
            if item in refused:
                what = f"job {story.id} is there, although its enqueue failed for certain"
                yield Violation("I3", what, [refused[item], *story.claims[:1], story.final()])


def fencing(world: World) -> Found:
    """I4: fences grow with each claim, and nobody settles or renews with an old one."""
    for story in world.jobs.values():
        for one, other in pairwise(story.claims):
            if one.fence == other.fence:
                yield Violation("I4", f"job {story.id} was claimed twice at fence {one.fence}", [one, other])
        earliest: Step | None = None
        for claim in reversed(story.claims):
            if earliest and earliest.ended < claim.began:
                yield Violation("I4", f"a later claim of job {story.id} has the lower fence", [earliest, claim])
            if earliest is None or claim.ended < earliest.ended:
                earliest = claim
        yield from _late(story)


def _late(story: Story) -> Found:
    uses = [step for steps in (*story.settles.values(), *story.renewals.values()) for step in steps if step.sure]
    overruled = [step for step in story.decisions if step.sure]
    for use in uses:
        for claim in story.claims:
            if claim.fence > use.fence and claim.ended < use.began:
                what = f"job {story.id}: {use.kind} with fence {use.fence} was accepted after a claim at {claim.fence}"
                yield Violation("I4", what, [claim, use])
                break
        held = [claim for claim in story.claims if claim.fence == use.fence]
        for step in overruled:
            if held and held[0].ended < step.began and step.ended < use.began:
                what = f"job {story.id}: {use.kind} with fence {use.fence} was accepted after a person's decision"
                yield Violation("I4", what, [held[0], step, use])
                break


def lease_end(world: World, story: Story, claim: Step) -> float:
    """Return until when a claim's lease lasted at least, unless somebody ended it."""
    times = [step.began for step in story.renewals.get(claim.fence, ()) if step.sure]
    return max([claim.began, *times]) + world.lease


def exclusive(world: World) -> Found:
    """I5: two leases on one job are never live at the same time."""
    for story in world.jobs.values():
        for one, other in pairwise(story.claims):
            until = lease_end(world, story, one)
            if other.ended + world.skew >= until or _ended(story, one, other):
                continue
            early = (until - other.ended) / NANO
            what = f"job {story.id} was claimed at fence {other.fence} {early:.3f} s before the lease {one.fence} ended"
            renewals = [step for step in story.renewals.get(one.fence, ()) if step.sure]
            yield Violation("I5", what, [one, *renewals[-1:], other])


def _ended(story: Story, one: Step, other: Step) -> bool:
    """Return whether anybody may have ended one claim before the other."""
    steps = (*story.settled(one.fence), *story.decisions)
    return any(step.began < other.ended and step.ended > one.began for step in steps)


def one_end(world: World) -> Found:
    """I6: a job ends once; nothing but a person's resubmission leads on from there."""
    for story in world.jobs.values():
        for fence, steps in story.settles.items():
            kinds = {step.kind for step in steps if step.sure}
            if "done" in kinds and len(kinds) > 1:
                yield Violation("I6", f"one lease of job {story.id}, fence {fence}, was settled in two ways", steps)
        if story.reopened:
            continue
        for end in _ends(story):
            later = [claim for claim in story.claims if claim.fence > end.fence and claim.ended > end.began]
            if end.kind == "cancel":
                later = [claim for claim in story.claims if claim.began > end.ended]
            if later:
                yield Violation("I6", f"job {story.id} was claimed after its end", [end, later[0]])
            row = story.row
            fits = row is None or row["status"] == _STATUS[end.kind]
            if not fits or (row and end.kind == "done" and row["fence"] != end.fence):
                what = f"job {story.id} ended with {end.kind}, and is something else now"
                yield Violation("I6", what, [end, *story.claims, story.final()])


_STATUS = {"done": "done", "permanent": "failed", "fail": "failed", "cancel": "cancelled"}


def _ends(story: Story) -> list[Step]:
    """Return the steps that have ended the job for certain."""
    spent = {claim.fence for claim in story.claims if claim.info["attempts"] >= claim.info["max_attempts"]}
    found = [step for step in story.decisions if step.sure and step.kind == "cancel"]
    for fence, steps in story.settles.items():
        if {step.kind for step in steps} & {"release"}:
            continue  # a release repeated as a failure stands as either
        found += [
            s for s in steps if s.sure and (s.kind in ("done", "permanent") or (s.kind == "fail" and fence in spent))
        ]
    return found


def attempts(world: World) -> Found:
    """I7: every delivery counts before it begins, but one that was given back; none beyond the maximum."""
    for story in world.jobs.values():
        yield from _steps_of_attempts(story)
        row = story.row
        if story.decisions:
            continue
        given_back = sum(bool(story.settled(claim.fence, "release")) for claim in story.claims)
        most = row["max_attempts"] if row else NEVER
        if len(story.claims) - given_back > most:
            what = f"job {story.id} was delivered {len(story.claims)} times and given back {given_back}, {most} allowed"
            yield Violation("I7", what, [*story.claims, story.final()])
        permanent = row and story.settled(row["fence"], "permanent")
        if row and row["status"] == "failed" and row["attempts"] < most and not permanent:
            what = f"job {story.id} failed after {row['attempts']} of {most} attempts"
            yield Violation("I7", what, [*story.claims, story.final()])


def _steps_of_attempts(story: Story) -> Found:
    for claim in story.claims:
        if not 1 <= claim.info["attempts"] <= claim.info["max_attempts"]:
            what = f"job {story.id}: delivery {claim.info['attempts']} of at most {claim.info['max_attempts']}"
            yield Violation("I7", what, [claim])
    for one, other in pairwise(story.claims):
        if _decided_between(story, one, other):
            continue
        before, after = one.info["attempts"], other.info["attempts"]
        kinds = {step.kind for step in story.settled(one.fence)}
        if "release" not in kinds and after <= before:
            yield Violation("I7", f"job {story.id}: the delivery at fence {one.fence} did not count", [one, other])
        sure = {step.kind for step in story.settled(one.fence, sure=True)}
        if other.fence == one.fence + 1 and kinds == sure == {"release"} and after != before:
            yield Violation("I7", f"job {story.id}: giving it back at fence {one.fence} cost an attempt", [one, other])


def _decided_between(story: Story, one: Step, other: Step) -> bool:
    return any(step.ended >= one.began and step.began <= other.ended for step in story.decisions)


_BY_HOLDER = {"processing": ("processing", "done", "failed", "pending")}
_LATER = {
    "pending": STATUSES,
    "processing": STATUSES,
    "done": ("done",),
    "failed": ("failed",),
    "cancelled": ("cancelled",),
}


def edges(world: World) -> Found:
    """I8: a job goes only where the published table leads; the fence stands still only for its holder's moves."""
    for story in world.jobs.values():
        seen = list(story.sightings)
        if story.row:
            seen.append(story.final())
        for one, other in pairwise(seen):
            if one.ended >= other.began:
                continue
            before, after = one.info["status"], other.info["status"]
            legal = _LATER[before] if other.fence > one.fence else _BY_HOLDER.get(before, (before,))
            reopened = any(s.kind == "resubmit" and s.ended >= one.began for s in story.decisions)
            if other.fence < one.fence or (after not in legal and not (reopened and other.fence > one.fence)):
                what = f"job {story.id} went from {before} at fence {one.fence} to {after} at {other.fence}"
                yield Violation("I8", what, [one, other])
        if story.row and (flaw := _misshapen(story.row)):
            yield Violation("I8", f"job {story.id} is {story.row['status']} {flaw}", [story.final()])


def _misshapen(row: dict[str, object]) -> str:
    status = row["status"]
    if status not in STATUSES:
        return "which is no status"
    if (status == "processing") != (row["lease_until"] is not None):
        return "with a lease" if row["lease_until"] else "without a lease"
    if (status in TERMINAL) != (row["finished_at"] is not None):
        return "and has ended" if row["finished_at"] else "and has no end"
    return ""


CHECKS: list[Callable[[World], Found]] = [
    no_loss, no_phantom, definite_failure, fencing, exclusive, one_end, attempts, edges,
]  # fmt: skip
