"""More invariants: order, time, duplicates, bounds, effects and the store itself."""

import heapq
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise

from .invariants import EVENTS_KEPT, TERMINAL, Found, Violation, lease_end
from .reading import NANO, NEVER, Call, Step, Story, World

SETTLING_SECONDS = 5.0
"""By then a server has noticed that a client is dead, and what the client had locked is free."""


def in_order(world: World) -> Found:
    """I9: whoever claims from a queue alone gets the highest priority first, and the oldest of those."""
    alone = _claimed_by_one(world)
    waiting: dict[str, list[Step]] = defaultdict(list)
    for new in _first_claims(world):
        if new.info["queue"] in alone and not new.info.get("delay"):
            waiting[new.info["queue"]].append(new)
    for queue, actor in alone.items():
        taking = (call for call in world.calls if call.actor == actor and call.op == "exchange" and call.sure)
        yield from _overtaken(world, queue, sorted(waiting[queue], key=lambda new: new.ended), taking)


def _overtaken(world: World, queue: str, new: list[Step], taking: Iterator[Call]) -> Found:
    line: list[tuple[tuple[int, int], Step]] = []
    gone: set[int] = set()
    upcoming = iter([*new, None])
    following = next(upcoming)
    for call in taking:
        while following and following.ended < call.began:
            heapq.heappush(line, (_place(following), following))
            following = next(upcoming)
        claimed = [claim for claim in call.told.get("claimed", ()) if claim["queue"] == queue]
        gone |= {claim["id"] for claim in claimed}
        while line and line[0][1].job in gone:
            heapq.heappop(line)
        late = [claim for claim in claimed if line and (-claim["priority"], claim["id"]) > line[0][0]]
        if late:
            first, taken = line[0][1], call.step("claim", late[0]["id"], late[0]["fence"])
            what = f"job {taken.job} of queue {queue} was claimed while job {first.job} was before it"
            yield Violation("I9", what, [first, taken])
            return


def _place(new: Step) -> tuple[int, int]:
    return -(new.info.get("priority") or 0), new.job


def _claimed_by_one(world: World) -> dict[str, str]:
    """Return the queues that one actor only has claimed from, and who it was."""
    actors: dict[str, set[str]] = defaultdict(set)
    for call in world.calls:
        if call.op == "exchange" and call.asked.get("limit") and call.outcome != "fail":
            for queue in call.asked.get("queues") or [""]:
                actors[queue].add(call.actor)
    everywhere = actors.pop("", set())
    queues = {new.info["queue"] for new in world.enqueues}
    found = {queue: actors[queue] | everywhere for queue in queues}
    return {queue: next(iter(who)) for queue, who in found.items() if len(who) == 1}


def _first_claims(world: World) -> list[Step]:
    """Return the acknowledged jobs that nobody touched before the first claim that we know of, if there is any."""
    found: dict[int, Step] = {}
    for new in world.enqueues:  # in the order of their begin; a key may have been acknowledged more than once
        if new.sure and not (story := world.story(new.job)).decisions and _untouched(story):
            found.setdefault(new.job, new)
    return list(found.values())


def _untouched(story: Story) -> bool:
    if story.claims:
        return story.claims[0].fence == 1
    return story.row is not None and story.row["fence"] == 0


def bound(world: World) -> Found:
    """I10: a recovery that began after a lease had ended takes the job back."""
    looks = [call for call in world.calls if call.op == "recover" and call.sure and call.asked.get("calm")]
    if world.meta.get("skips_locked"):
        kills = sorted(world.killed.values())
        looks = [look for look in looks if not _died_lately(kills, look)]
    starts = [look.began for look in looks]
    for story in world.jobs.values():
        for claim in story.claims:
            place = bisect_right(starts, _latest_end(world, story, claim) + world.skew)
            if place == len(looks):
                continue
            look = looks[place]
            late = next((step for step in _uses(story, claim.fence) if step.began > look.ended), None)
            if late:
                what = f"a recovery passed over job {story.id}, whose lease {claim.fence} had ended"
                passed = look.step("recover", story.id)
                yield Violation("I10", what, [claim, passed, late])


def _died_lately(kills: list[float], look: Call) -> bool:
    place = bisect_right(kills, look.ended)
    return place > 0 and kills[place - 1] > look.began - SETTLING_SECONDS * NANO


def _latest_end(world: World, story: Story, claim: Step) -> float:
    """Return when a lease had ended at the latest, unless it was renewed after that."""
    return max([claim.ended, *(step.ended for step in story.renewals.get(claim.fence, ()))]) + world.lease


def _uses(story: Story, fence: int) -> Iterator[Step]:
    """Yield what proves that the lease was still there."""
    yield from (step for step in story.settled(fence, sure=True))
    yield from (step for step in story.sightings if step.info["status"] == "processing" and step.fence == fence)
    if story.row and story.row["status"] == "processing" and story.row["fence"] == fence:
        yield story.final()


def not_early(world: World) -> Found:
    """I11: nothing is claimed before its time."""
    for new in world.enqueues:
        if not (new.sure and new.info.get("delay")) or world.story(new.job).decisions:
            continue
        due = new.began + new.info["delay"] * NANO
        for claim in world.story(new.job).claims[:1]:
            if claim.ended + world.skew < due:
                what = f"job {new.job} was claimed {(due - claim.ended) / NANO:.3f} s early"
                yield Violation("I11", what, [new, claim])
    for story in world.jobs.values():
        for one, other in pairwise(story.claims):
            settled = story.settled(one.fence)
            if len(settled) != 1 or not settled[0].sure or not settled[0].info.get("delay") or story.decisions:
                continue
            due = settled[0].began + settled[0].info["delay"] * NANO
            if other.ended + world.skew < due:
                yield Violation("I11", f"job {story.id} came back before its delay was over", [settled[0], other])


def duplicates_explained(world: World) -> Found:
    """I12: a lease is performed once; another delivery has a failure, a release or an expiry before it."""
    for story in world.jobs.values():
        for one, other in pairwise(sorted(story.effects, key=lambda effect: (effect.fence, effect.began))):
            if one.fence == other.fence:
                yield Violation("I12", f"job {story.id} was performed twice at fence {one.fence}", [one, other])
        if story.events >= EVENTS_KEPT // 2:
            continue
        expired = {event["attempt"] for event in story.expiries}
        for one, other in pairwise(story.claims):
            if story.settled(one.fence) or story.decisions or one.info["attempts"] in expired:
                continue
            if other.ended + world.skew >= lease_end(world, story, one):
                what = f"job {story.id} was delivered again at fence {other.fence} and its history does not say why"
                yield Violation("I12", what, [one, other])


def backpressure(world: World) -> Found:
    """I13: no enqueue is acknowledged while as many jobs wait as may."""
    bounds = _bounded(world)
    certain = _first_claims(world) if bounds else []
    for most, actors in bounds.items():
        added = sorted(new.ended for new in certain)
        taken = sorted(story.claims[0].began for new in certain if (story := world.story(new.job)).claims)
        for call in world.calls:
            if call.op != "enqueue" or not call.sure or call.actor not in actors or _repeats(call):
                continue
            depth = bisect_left(added, call.began) - bisect_right(taken, call.ended)
            if depth + len(call.told["ids"]) > most:
                what = f"an enqueue was acknowledged with {depth} of {most} jobs waiting"
                yield Violation("I13", what, [call.step("enqueue", job) for job in call.told["ids"]])
                break


def _bounded(world: World) -> dict[int, set[str]]:
    """Return the bounds that actors have, and who has each."""
    found: dict[int, set[str]] = defaultdict(set)
    for call in world.calls:
        if call.op == "enqueue" and call.asked.get("most"):
            found[call.asked["most"]].add(call.actor)
    return found


def _repeats(call: Call) -> bool:
    return any(new.get("key") for new in call.asked["jobs"])


def unknowns(world: World) -> Found:
    """I14: an enqueue whose outcome is unknown gave one job at most, and so did all with one key together."""
    rows: dict[str, list[Story]] = defaultdict(list)
    for story in world.jobs.values():
        if story.row:
            rows[story.row["item"]].append(story)
    by_key: dict[tuple[str, str], list[Step]] = defaultdict(list)
    tries: dict[str, list[Step]] = defaultdict(list)
    for new in world.enqueues:
        tries[new.info["item"]].append(new)
        if new.info.get("key"):
            by_key[new.info["queue"], new.info["key"]].append(new)
    for item, steps in tries.items():
        if len(rows[item]) > len(steps):
            made = [story.final() for story in rows[item]]
            yield Violation("I14", f"{len(steps)} enqueues of {item!r:.60} gave {len(made)} jobs", [*steps, *made])
    for (queue, key), steps in by_key.items():
        made = {step.job for step in steps if step.sure}
        made |= {story.id for item in {step.info["item"] for step in steps} for story in rows[item]}
        if len(made) > 1 and not any(world.story(job).reopened for job in made):
            ends = [world.story(job).final() for job in made]
            yield Violation("I14", f"key {key!r:.60} of queue {queue} has {len(made)} jobs", [*steps, *ends])


def effects(world: World) -> Found:
    """I15: a handler has a fence that its process claimed, and what was settled is the newest that was begun."""
    for story in world.jobs.values():
        claimed = {(claim.fence, claim.actor) for claim in story.claims}
        for effect in story.effects:
            if (effect.fence, effect.actor) not in claimed:
                what = f"job {story.id} was performed at fence {effect.fence}, which {effect.actor} never claimed"
                yield Violation("I15", what, [*story.claims, effect])
        newest = max((effect.fence for effect in story.effects), default=0)
        for fence, steps in story.settles.items():
            done = [step for step in steps if step.kind == "done" and step.sure]
            if done and fence < newest and not story.reopened:
                later = [effect for effect in story.effects if effect.fence == newest]
                yield Violation(
                    "I15", f"job {story.id} is settled, and a newer performance of it is not", [*done, *later]
                )


def store(world: World) -> Found:
    """I18: the database finds itself sound, and its counts are those of its rows."""
    for what in world.faults:
        yield Violation("I18", what, [])
    counted: dict[tuple[str, str], int] = defaultdict(int)
    for story in world.jobs.values():
        if story.row:
            counted[story.row["queue"], story.row["status"]] += 1
    for tally in world.tallies:
        counted[tally["queue"], tally["status"]] -= tally["count"]
    off = {key: number for key, number in counted.items() if number}
    if off:
        yield Violation("I18", f"the counts are off, by queue and status: {off}", [])


def liveness(world: World) -> Found:
    """I19: once the faults are over every job ends; and nobody is refused who did not wait for his turn."""
    for story in world.jobs.values():
        if world.meta.get("quiet") and story.row and story.row["status"] not in TERMINAL:
            yield Violation("I19", f"job {story.id} never ended", [*story.claims, story.final()])
    if world.meta.get("drained"):
        yield Violation("I19", f"the last consumer left with exit code {world.meta['drained']}", [])
    patience = world.meta.get("patience")
    for call in world.calls:
        waited = (call.ended - call.began) / NANO
        if patience and call.told.get("error") == "DatabaseUnavailable" and waited < patience / 2:
            what = f"{call.actor} was refused after {waited:.3f} s, where a call waits for {patience:g} s"
            yield Violation("I19", what, [call.step(call.op, 0)])
    stuck = [call for call in world.calls if call.ended == NEVER and call.actor not in world.killed]
    for call in stuck:
        if call.outcome == "unknown" and not call.told:
            yield Violation("I19", f"{call.actor} lives, and its call never returned", [call.step(call.op, 0)])


CHECKS: list[Callable[[World], Found]] = [
    in_order, bound, not_early, duplicates_explained, backpressure, unknowns, effects, store, liveness,
]  # fmt: skip
