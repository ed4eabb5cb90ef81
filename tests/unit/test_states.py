"""The transition table is the drawing in the design, no more and no less."""

import pytest

from persistq.model import TERMINAL, JobStatus
from persistq.states import TRANSITIONS, allowed, mermaid, table

# event: where it may begin, where it leads, as section 4 of the design draws it.
DRAWN = {
    "claim": ({"pending"}, "processing"),
    "complete": ({"processing"}, "done"),
    "crash": ({"processing"}, "pending"),
    "release": ({"processing"}, "pending"),
    "fail": ({"processing"}, "failed"),
    "mark_failed": ({"pending", "processing"}, "failed"),
    "cancel": ({"pending", "processing"}, "cancelled"),
    "assign": ({"pending", "processing"}, "pending"),
    "resubmit": ({"failed", "cancelled"}, "pending"),
    "force_resubmit": ({"failed", "cancelled", "done"}, "pending"),
}


def test_the_table_has_the_events_of_the_drawing() -> None:
    assert {event: (set(move.sources), move.target) for event, move in TRANSITIONS.items()} == DRAWN


@pytest.mark.parametrize("status", JobStatus)
@pytest.mark.parametrize("event", DRAWN)
def test_each_event_in_each_status_is_as_drawn(event: str, status: JobStatus) -> None:
    sources, target = DRAWN[event]
    assert allowed(event, status) == (status in sources)
    assert TRANSITIONS[event].target == target


def test_nothing_but_a_resubmission_leaves_a_terminal_status() -> None:
    leaving = {event for event, move in TRANSITIONS.items() if move.sources & TERMINAL}
    assert leaving == {"resubmit", "force_resubmit"}


def test_a_job_enters_processing_by_a_claim_only() -> None:
    assert [event for event, move in TRANSITIONS.items() if move.target == JobStatus.PROCESSING] == ["claim"]


def test_the_diagram_draws_every_move_once() -> None:
    drawn = [line.strip() for line in mermaid().splitlines()]
    moves = {(source, move.target) for move in TRANSITIONS.values() for source in move.sources}
    arrows = [line for line in drawn if " : " in line and "[*]" not in line]
    assert len(arrows) == len(moves)
    assert drawn[:2] == ["stateDiagram-v2", "[*] --> pending : enqueue"]
    assert drawn[-3:] == [f"{status} --> [*] : purge, delete" for status in ("done", "failed", "cancelled")]
    assert len(drawn) == len(arrows) + 5
    for event, (sources, target) in DRAWN.items():
        for source in sources:
            named = next(line for line in arrows if line.startswith(f"{source} --> {target} :"))
            assert event in named.partition(" : ")[2].split(", ")


def test_the_table_says_refused_where_the_drawing_has_no_arrow() -> None:
    head, line, *_ = table().splitlines()
    assert head == "| event | pending | processing | done | failed | cancelled | meaning |"
    assert line == "|---" * 7 + "|"
    rows = {cells[1].strip(" `"): cells[2:-2] for cells in (line.split("|") for line in table().splitlines()[2:])}
    for event, (sources, target) in DRAWN.items():
        expected = [f"→ {target}" if status in sources else "refused" for status in JobStatus]
        assert [cell.strip() for cell in rows[event]] == expected
        assert table().count(f"| {TRANSITIONS[event].meaning} |") == 1
