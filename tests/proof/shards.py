"""What a storm on shards left behind, and whether it is as promised. Nothing here knows persistq."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from .figures import Figures
from .history import FINAL, META, SUFFIX
from .invariants import Found, Violation
from .reading import NANO, NEVER, Call, Step, Unreadable, lines

Key = tuple[str, int]
"""A request: who registered it, and as which of theirs."""


@dataclass(slots=True)
class Request:
    """All that is known of one request."""

    key: Key
    tube: str
    registered: Call
    performed: list[Call] = field(default_factory=list)
    removed: list[Call] = field(default_factory=list)


@dataclass(slots=True)
class Tube:
    """All that is known of one tube's leases."""

    name: str
    #: Every one that is sure, by token.
    binds: dict[str, Call] = field(default_factory=dict)
    #: By token: what was done with it.
    uses: dict[str, list[Call]] = field(default_factory=lambda: defaultdict(list))


class Shards:
    """One run: what everybody registered, and what came of it."""

    def __init__(self, folder: Path) -> None:
        self.meta = json.loads((folder / META).read_text())
        self.lease, self.skew = self.meta["lease"] * NANO, self.meta["skew"] * NANO
        self.calls: list[Call] = []
        self.notes: list[dict[str, Any]] = []
        self.requests: dict[Key, Request] = {}
        self.tubes: dict[str, Tube] = {}
        self.phantoms: list[tuple[Key, Call]] = []
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            if path.stem != FINAL:
                self._read(path)
        self.calls.sort(key=lambda call: call.began)
        for call in self.calls:
            if call.op == "register":
                for tube, number in call.asked["requests"]:
                    self.requests[call.actor, number] = Request((call.actor, number), tube, call)
        for call in self.calls:
            self._take(call)
        if not (folder / f"{FINAL}{SUFFIX}").exists() and not self.meta.get("drained"):
            raise Unreadable("nobody wrote down how it ended")

    def _read(self, path: Path) -> None:
        calls: dict[int, Call] = {}
        for record in filter(None, lines(path)):
            if "c" not in record:
                self.notes.append(record)
            elif record["is"] == "invoke":
                call = calls[record["c"]] = Call(path.stem, record["op"], record["t"], record)
                self.calls.append(call)
            else:
                call = calls[record["c"]]
                call.outcome, call.told = record["is"], record
                call.ended = NEVER if call.outcome == "unknown" else record["t"]

    def _take(self, call: Call) -> None:
        asked, told = call.asked, call.told
        if call.op == "bind" and told.get("token"):
            self.tube(told["tube"]).binds[told["token"]] = call
        elif call.op in ("renew", "unbind", "remove"):
            self.tube(asked["tube"]).uses[asked["token"]].append(call)
        if call.op in ("perform", "remove"):
            for producer, number in asked["requests"]:
                request = self.requests.get((producer, number))
                if request is None:
                    self.phantoms.append(((producer, number), call))
                elif call.op == "perform":
                    request.performed.append(call)
                elif call.outcome != "fail":
                    request.removed.append(call)

    def tube(self, name: str) -> Tube:
        return self.tubes.setdefault(name, Tube(name))

    def bound(self, call: Call) -> Call | None:
        """Return the bind that gave the lease under which a call was made."""
        return self.tube(call.asked["tube"]).binds.get(call.asked["token"])


def write_end(folder: Path) -> None:
    """Write down that nothing is left."""
    (folder / f"{FINAL}{SUFFIX}").write_text("{}\n")


def _step(call: Call, what: str) -> Step:
    return Step(f"{call.op} {what}", 0, 0, call.began, call.ended, call.sure, call.actor)


def no_loss(shards: Shards) -> Found:
    """I1: what was acknowledged is performed to its end, and removed only after that."""
    for request in shards.requests.values():
        done = [call.ended for call in request.performed if call.sure]
        if request.registered.sure and not done:
            what = f"request {request.key} was acknowledged, and nobody performed it"
            yield Violation("I1", what, [_step(request.registered, request.tube)])
        for call in request.removed:
            if not any(ended < call.began for ended in done):
                what = f"request {request.key} was removed before it was performed"
                yield Violation("I1", what, [_step(call, request.tube)])


def no_phantom(shards: Shards) -> Found:
    """I2: what is performed was registered."""
    for key, call in shards.phantoms:
        yield Violation("I2", f"request {key} was never registered", [_step(call, call.asked["tube"])])


def definite_failure(shards: Shards) -> Found:
    """I3: what failed to be registered, for certain, is never performed."""
    for request in shards.requests.values():
        if request.registered.outcome == "fail" and request.performed:
            steps = [_step(call, request.tube) for call in (request.registered, request.performed[0])]
            yield Violation("I3", f"request {request.key} failed to be registered, and was performed", steps)


def fencing(shards: Shards) -> Found:
    """I4: nobody removes or renews with a lease after somebody else was given the tube."""
    for tube in shards.tubes.values():
        binds = sorted(tube.binds.values(), key=lambda bind: bind.began)
        for token, uses in tube.uses.items():
            mine = tube.binds.get(token)
            for use in uses:
                if mine is None or not use.sure or use.op == "unbind":  # to give back what is lost does nothing
                    continue
                later = [bind for bind in binds if bind.began > mine.ended and bind.ended < use.began]
                if later:
                    steps = [_step(call, tube.name) for call in (mine, later[0], use)]
                    yield Violation("I4", f"{use.op} was accepted though {tube.name} was somebody else's", steps)


def exclusive(shards: Shards) -> Found:
    """I5: two leases of one tube are never live at the same time."""
    for tube in shards.tubes.values():
        binds = sorted(tube.binds.items(), key=lambda item: item[1].ended)
        for (token, one), (_, other) in pairwise(binds):
            uses = tube.uses[token]
            if any(use.op == "unbind" and use.began < other.ended for use in uses):
                continue
            renewed = [use.began for use in uses if use.op == "renew" and use.sure and use.began < other.began]
            until = max([one.began, *renewed]) + shards.lease
            if other.ended + shards.skew < until:
                what = f"{tube.name} was bound {(until - other.ended) / NANO:.3f} s before its lease had ended"
                yield Violation("I5", what, [_step(one, tube.name), _step(other, tube.name)])


def over_is_over(shards: Shards) -> Found:
    """I6: what was removed is not performed under a later lease, nor again under the same."""
    for request in shards.requests.values():
        gone = [call for call in request.removed if call.sure]
        for call in request.performed if gone else ():
            bind = shards.bound(call)
            if call.began > gone[0].ended and (
                call.asked["token"] == gone[0].asked["token"] or (bind and bind.began > gone[0].ended)
            ):
                steps = [_step(gone[0], request.tube), _step(call, request.tube)]
                yield Violation("I6", f"request {request.key} was performed after it was removed", steps)


def never_given_up(shards: Shards) -> Found:
    """I7: nothing is given up that may be tried a thousand times."""
    for note in shards.notes:
        if note["op"] == "promoted":
            yield Violation("I7", f"{note['request']} of {note['tube']} was given up: {note['error']}", [])


def in_order(shards: Shards) -> Found:
    """I9: each request of a thread is performed, for the first time, after all that stand before it."""
    by_tube: dict[str, list[tuple[float, int, Request]]] = defaultdict(list)
    for request in shards.requests.values():
        if request.performed:
            first = min(request.performed, key=lambda call: call.began)
            place = first.asked["requests"].index(list(request.key))
            by_tube[request.tube].append((first.began, place, request))
    for tube, firsts in by_tube.items():
        firsts.sort(key=lambda one: one[:2])
        earliest: Request | None = None
        for _, _, request in reversed(firsts):
            if earliest and _before(earliest, request):
                what = f"in {tube}, request {request.key} was performed before {earliest.key}, which stands before it"
                steps = [_step(one.registered, tube) for one in (earliest, request)]
                yield Violation("I9", what, [*steps, *(_step(one.performed[0], tube) for one in (earliest, request))])
                break
            if earliest is None or _place(request) < _place(earliest):
                earliest = request


def _place(request: Request) -> tuple[float, int]:
    return request.registered.ended, request.key[1]


def _before(one: Request, other: Request) -> bool:
    """Return whether one certainly stands before the other in their tube."""
    if one.registered is other.registered:
        return one.key[1] < other.key[1]
    return one.registered.ended < other.registered.began


def everything_ends(shards: Shards) -> Found:
    """I19: once the faults are over, every tube gets empty."""
    if shards.meta.get("drained"):
        yield Violation("I19", f"the last worker left with exit code {shards.meta['drained']}", [])


CHECKS = (
    no_loss, no_phantom, definite_failure, fencing, exclusive, over_is_over, never_given_up, in_order, everything_ends,
)  # fmt: skip


def judge(folder: Path) -> tuple[Figures, list[Violation]]:
    """Return the figures of a run, and the ways in which it broke an invariant."""
    shards = Shards(folder)
    return _figures(shards), [violation for check in CHECKS for violation in check(shards)]


def _figures(shards: Shards) -> Figures:
    performed = [request for request in shards.requests.values() if request.performed]
    deliveries = [call for request in performed for call in request.performed]
    failed = sum(call.outcome == "fail" for call in deliveries)
    lost = [call for call in shards.calls if call.told.get("error") == "LeaseLost"]
    return {
        "kills": sum(note["op"] == "kill" for note in shards.notes),
        "pauses": sum(note["op"] == "stop" for note in shards.notes),
        "requests": sum(request.registered.sure for request in shards.requests.values()),
        "threads": len(shards.tubes),
        "deliveries": len(deliveries),
        "duplicates": len(deliveries) - failed - len(performed),
        "leases": sum(len(tube.binds) for tube in shards.tubes.values()),
        "stale leases refused": len(lost),
        "outcomes unknown": sum(call.outcome == "unknown" for call in shards.calls),
    }
