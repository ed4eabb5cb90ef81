"""Figures of a run: how much was done, how much of it again, and how long the dead one's jobs waited."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from .reading import NANO, Step, Story, World

RUN = "run.json"
"""The figures of a storm, where its histories are."""

Figures = dict[str, Any]


def figures(world: World) -> Figures:
    """Return what a run has to say for itself: numbers, and lists of seconds."""
    delivered = [story for story in world.jobs.values() if story.effects]
    back, claimed = _redeliveries(world)
    return {
        "kills": len(world.killed),
        "pauses": sum(note["op"] == "stop" for note in world.notes),
        "jobs": sum(new.sure for new in world.enqueues),
        "deliveries": sum(len(story.effects) for story in delivered),
        "duplicates": sum(_unasked(story) for story in delivered),
        "stale leases refused": _refused(world),
        "effects of overtaken holders": sum(_zombies(story) for story in delivered),
        "outcomes unknown": sum(call.outcome == "unknown" for call in world.calls),
        "ready again after the kill": back,
        "claimed again after the kill": claimed,
    }


def together(runs: Iterable[Figures]) -> Figures:
    """Return the figures of several runs as if they were one."""
    sums: Figures = {}
    for run in runs:
        for name, value in run.items():
            sums[name] = sums[name] + value if name in sums else value
    return sums


def told(figures: Figures) -> str:
    """Return figures as lines of text."""
    shown = {name: _text(name, value) for name, value in figures.items()}
    if figures.get("deliveries"):
        shown["duplicate rate"] = f"{figures['duplicates'] / figures['deliveries']:.4%}"
    return "\n".join(f"{name}: {value}" for name, value in shown.items())


def _text(name: str, value: Any) -> str:
    if name == "seed":
        return " ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else spread(value)


def spread(seconds: Sequence[float]) -> str:
    """Return median, 99th percentile, maximum and number."""
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    at = [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.99)]
    return f"p50 {at[0]:.2f} s, p99 {at[1]:.2f} s, max {ordered[-1]:.2f} s, n {len(ordered):,}"


def _unasked(story: Story) -> int:
    """Return how many deliveries came after another that nobody failed or gave back."""
    asked = {fence for fence, steps in story.settles.items() if any(step.kind != "done" for step in steps)}
    fences = sorted({effect.fence for effect in story.effects})
    return sum(fence not in asked for fence in fences[:-1])


def _zombies(story: Story) -> int:
    """Return how many handlers began after a newer claim had been answered."""
    return sum(
        any(claim.fence > effect.fence and claim.ended < effect.began for claim in story.claims)
        for effect in story.effects
    )


def _refused(world: World) -> int:
    lost = sum(len(call.told.get("lost", ())) for call in world.calls if call.op == "exchange")
    return lost + sum(call.told.get("error") == "LeaseLost" for call in world.calls)


def _redeliveries(world: World) -> tuple[list[float], list[float]]:
    """Return, for each job that a killed actor held, how long after the kill it was ready and was claimed again."""
    offset = world.meta.get("offset")
    held: dict[int, list[tuple[float, Step]]] = defaultdict(list)
    for story in world.jobs.values():
        for claim in story.claims:
            if claim.actor in world.killed and not story.settled(claim.fence) and not story.decisions:
                held[story.id].append((world.killed[claim.actor], claim))
    back, claimed = [], []
    for job, losses in held.items():
        story = world.jobs[job]
        for killed, claim in losses:
            times = [event["at"] * 1000 - offset for event in story.expiries if offset is not None
                     and event["attempt"] == claim.info["attempts"]]  # fmt: skip
            back += [(time - killed) / NANO for time in times if time > killed]
            following = next((other for other in story.claims if other.fence > claim.fence), None)
            if following and following.ended > killed:
                claimed.append((following.ended - killed) / NANO)
    return back, claimed
