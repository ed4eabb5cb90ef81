"""span() and emit(): observers hear everything and break nothing."""

import logging
from typing import Any

import pytest
from support.jobs import MakeQueue, claim

from persistq import subscribe
from persistq.events import emit, span

Heard = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def heard() -> Heard:
    """What an observer has been told."""
    told: Heard = []
    subscribe(lambda name, fields: told.append((name, fields)))
    return told


def test_an_observer_hears_until_it_has_had_enough() -> None:
    told: Heard = []
    end = subscribe(lambda name, fields: told.append((name, fields)))
    emit("a", x=1)
    end()
    emit("b")
    assert told == [("a", {"x": 1})]


def test_an_observer_may_name_what_it_wants_to_hear(heard: Heard) -> None:
    told: list[str] = []
    emit("a")  # whoever subscribes later is heard all the same
    end = subscribe(lambda name, _fields: told.append(name), "a", "c")
    for name in ("a", "b", "c"):
        emit(name)
    end()
    emit("a")
    assert told == ["a", "c"]
    assert [name for name, _ in heard] == ["a", "a", "b", "c", "a"]


def test_an_observer_that_raises_hurts_neither_the_work_nor_the_next(
    caplog: pytest.LogCaptureFixture, make_queue: MakeQueue
) -> None:
    def broken(_name: str, _fields: dict[str, Any]) -> None:
        raise RuntimeError("observer")

    told: list[str] = []
    subscribe(broken)
    subscribe(lambda name, _fields: told.append(name))
    with caplog.at_level(logging.WARNING):
        q = make_queue()
        q.enqueue("x")
        q.complete(claim(q))
    assert q.counts()["done"] == 1
    assert {"queue.enqueue", "queue.exchange", "queue.complete"} <= set(told)
    assert "observer" in caplog.text


def test_a_span_tells_its_length_and_what_the_block_adds(heard: Heard) -> None:
    with span("work", jobs=2) as fields:
        fields["found"] = 1
    name, told = heard[0]
    assert (name, told["jobs"], told["found"], "error" in told) == ("work", 2, 1, False)
    assert told["seconds"] >= 0


def test_a_span_tells_the_error_and_lets_it_pass(heard: Heard) -> None:
    with pytest.raises(KeyError), span("work"):
        raise KeyError("x")
    assert heard[0][1]["error"] == "KeyError"


def test_an_observer_may_leave_while_it_is_told() -> None:
    told: list[str] = []

    def once(name: str, _fields: dict[str, Any]) -> None:
        told.append(name)
        end()

    end = subscribe(once)
    emit("a")
    emit("b")
    assert told == ["a"]
