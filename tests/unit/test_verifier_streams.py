"""The verifier against histories of batches and shards, written by hand: good ones pass, each bad one breaks one."""

import json
from array import array
from pathlib import Path
from typing import Any

import pytest
from proof import batches, shards, verifier
from proof.reading import Unreadable

SECOND = 1_000_000_000


class Page:
    """One actor's history, as it would have written it. Times are seconds."""

    def __init__(self, folder: Path, actor: str) -> None:
        self._path = folder / f"{actor}.jsonl"
        self._path.touch()
        self._calls = 0

    def call(self, began: float, ended: float | None, op: str, outcome: str = "ok", told: Any = None, **asked: Any):
        """Write a call; without an end nobody knows what became of it."""
        self._calls += 1
        self._write({"t": began * SECOND, "c": self._calls, "op": op, "is": "invoke", **asked})
        if ended is not None:
            self._write({"t": ended * SECOND, "c": self._calls, "is": outcome, **(told or {})})

    def note(self, at: float, op: str, **fields: Any) -> None:
        self._write({"t": at * SECOND, "op": op, **fields})

    def _write(self, record: dict[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")


class Run:
    """A folder with the histories of one run."""

    def __init__(self, folder: Path, of: str, **meta: Any) -> None:
        self.folder = folder
        self.meta: dict[str, Any] = {"of": of, "drained": 0, **meta}
        self.pages: dict[str, Page] = {}

    def __getitem__(self, actor: str) -> Page:
        if actor not in self.pages:
            self.pages[actor] = Page(self.folder, actor)
        return self.pages[actor]

    def killed(self, actor: str) -> None:
        self["nemesis"].note(99, "kill", actor=actor)

    def broken(self) -> set[str]:
        (self.folder / "meta.json").write_text(json.dumps(self.meta))
        return {violation.invariant for violation in verifier.judge(self.folder)[1]}


class Spool(Run):
    """Batches of six items, saved by blocks of two."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "batches", max_items=6, block=2)
        self.left: list[str] = []

    def add(self, upto: int, *, safe: bool = True, which: int = 1) -> None:
        self[f"producer-{which}"].call(1, 2 if safe else None, "add", upto=upto)

    def read(self, which: int, *numbers: int, producer: int = 1) -> None:
        items = array("Q", [(producer << 32) + number for number in numbers])
        items.byteswap()
        with (self.folder / f"reader-{which}.items").open("ab") as file:
            items.tofile(file)

    def broken(self) -> set[str]:
        batches.write_end(self.folder, self.left)
        return super().broken()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


def test_a_spool_that_was_read_once_keeps_every_invariant(spool):
    spool.add(10)
    spool.add(14, safe=False)
    spool.add(3, which=2)
    spool.read(1, *range(6))
    spool.read(1, *range(3), producer=2)
    spool.read(2, *range(6, 12))  # two more than was safe, two less than was added
    assert spool.broken() == set()


def test_a_killed_reader_costs_one_block(spool):
    spool.add(6)
    spool.read(1, 0, 1, 2, 3)
    spool.killed("reader-1")
    spool.read(2, 2, 3, 4, 5)
    assert spool.broken() == set()
    assert verifier.judge(spool.folder)[0]["duplicates"] == 2


@pytest.mark.parametrize(
    ("invariant", "happens"),
    [
        ("I1", lambda spool: spool.read(1, 0, 1, 2, 3, 4)),
        ("I1", lambda spool: (spool.add(12, safe=False), spool.read(1, *range(6)), spool.read(2, 7, 8))),
        ("I2", lambda spool: spool.read(1, *range(7))),
        ("I2", lambda spool: (spool.read(1, *range(6)), spool.read(1, 0, producer=9))),
        ("I2", lambda spool: (spool.read(1, *range(6)), spool["reader-1"].note(3, "damaged", item="4x"))),
        ("I9", lambda spool: spool.read(1, 0, 1, 3, 2, 4, 5)),
        ("I9", lambda spool: (spool.read(1, 0, 1, 4, 5), spool.read(2, 2, 3, 4, 5), spool.killed("reader-1"))),
        ("I16", lambda spool: (spool.read(1, *range(6)), spool.read(2, *range(6)))),
        ("I16", lambda spool: (spool.read(1, 0, 1, 2), spool.read(2, *range(6)), spool.killed("reader-1"))),
        ("I19", lambda spool: (spool.read(1, *range(6)), spool.left.append("invalid_1.db"))),
        ("I19", lambda spool: (spool.read(1, *range(6)), spool.meta.update(drained=124))),
    ],
)
def test_what_goes_wrong_with_batches_is_found(spool, invariant, happens):
    spool.add(6)
    happens(spool)
    assert invariant in spool.broken()


def test_a_run_that_nobody_ended_cannot_be_judged(spool):
    spool.add(1)
    (spool.folder / "meta.json").write_text(json.dumps(spool.meta))
    with pytest.raises(Unreadable):
        verifier.judge(spool.folder)


class Tubes(Run):
    """One tube, whose leases last ten seconds."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "shards", lease=10.0, skew=0.0)
        shards.write_end(folder)

    def register(self, at: float, *numbers: int, outcome: str = "ok", producer: str = "p") -> None:
        asked = [["T/1", number] for number in numbers]
        self[producer].call(at, at + 0.1, "register", outcome, requests=asked)

    def bind(self, worker: str, at: float, token: str) -> None:
        self[worker].call(at, at + 0.1, "bind", told={"tube": "T/1", "token": token})

    def use(self, worker: str, at: float, token: str, op: str, *numbers: int, outcome: str = "ok", producer: str = "p"):
        asked = {"requests": [[producer, number] for number in numbers]} if op in ("perform", "remove") else {}
        told = {"error": "LeaseLost"} if outcome == "fail" else None
        self[worker].call(at, at + 0.1, op, outcome, told, tube="T/1", token=token, **asked)

    def serve(self, worker: str, at: float, token: str, *numbers: int) -> None:
        self.bind(worker, at, token)
        self.use(worker, at + 0.2, token, "perform", *numbers)
        self.use(worker, at + 0.4, token, "remove", *numbers)


@pytest.fixture
def tubes(tmp_path: Path) -> Tubes:
    return Tubes(tmp_path)


def test_shards_with_every_kind_of_trouble_keep_every_invariant(tubes):
    tubes.register(0, 0, 1)
    tubes.register(1, 2, outcome="unknown")
    tubes.register(2, 3, outcome="fail")
    tubes.register(3, 4)
    tubes.bind("a", 4, "a1")
    tubes.use("a", 5, "a1", "perform", 0, 1)
    tubes.use("a", 6, "a1", "renew")
    tubes.serve("b", 17, "b1", 0, 1)  # a is paused, until its lease is over
    tubes.use("a", 18, "a1", "remove", 0, 1, outcome="fail")
    tubes.use("a", 18.2, "a1", "perform", 0, 1)
    tubes.use("b", 19, "b1", "unbind")
    tubes.serve("c", 20, "c1", 2, 4)
    assert tubes.broken() == set()
    assert verifier.judge(tubes.folder)[0]["stale leases refused"] == 1


def _early(tubes: Tubes) -> None:
    tubes.bind("a", 4, "a1")
    tubes.use("a", 6, "a1", "renew")
    tubes.serve("b", 15, "b1", 0, 1)


def _stale(tubes: Tubes, op: str) -> None:
    tubes.bind("a", 4, "a1")
    tubes.use("a", 4.2, "a1", "perform", 0, 1)
    tubes.serve("b", 16, "b1", 0, 1)
    tubes.use("a", 17, "a1", op, 0, 1)


@pytest.mark.parametrize(
    ("invariant", "happens"),
    [
        ("I1", lambda tubes: tubes.serve("a", 4, "a1", 0)),
        ("I1", lambda tubes: (tubes.serve("a", 4, "a1", 1), tubes.use("a", 5, "a1", "remove", 0))),
        ("I2", lambda tubes: tubes.serve("a", 4, "a1", 0, 1, 7)),
        ("I3", lambda tubes: (tubes.register(2, 5, outcome="fail"), tubes.serve("a", 4, "a1", 0, 1, 5))),
        ("I4", lambda tubes: _stale(tubes, "remove")),
        ("I4", lambda tubes: _stale(tubes, "renew")),
        ("I5", _early),
        ("I6", lambda tubes: (tubes.serve("a", 4, "a1", 0, 1), tubes.use("a", 5, "a1", "perform", 1))),
        ("I6", lambda tubes: (tubes.serve("a", 4, "a1", 0, 1), tubes.serve("b", 20, "b1", 1))),
        ("I7", lambda tubes: tubes["a"].note(5, "promoted", tube="T/1", request="", error="")),
        ("I9", lambda tubes: tubes.serve("a", 4, "a1", 1, 0)),
        ("I9", lambda tubes: (tubes.register(1, 2), tubes.serve("a", 4, "a1", 2, 0, 1))),
        ("I19", lambda tubes: tubes.meta.update(drained=124)),
    ],
)
def test_what_goes_wrong_with_shards_is_found(tubes, invariant, happens):
    tubes.register(0, 0, 1)
    happens(tubes)
    assert invariant in tubes.broken()
