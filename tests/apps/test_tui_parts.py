"""The manager's parts by themselves: cells, columns, filters, the poller's patience."""

import threading
import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from persistq.manager import filters, registry, widgets
from persistq.manager.poller import Poller, Seen, Trouble
from persistq.manager.table import Column, Row, Table
from prompt_toolkit.utils import get_cwidth
from support.clock import START

import persistq

NOW = datetime(2024, 2, 29, tzinfo=UTC)


def steers(text: str) -> bool:
    """Return whether anything in a text is a control, a mark of direction or the like."""
    return any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for char in text)


@given(st.text(), st.integers(0, 40), st.booleans())
def test_what_is_fit_has_exactly_its_cells_and_steers_nothing(text: str, width: int, right: bool) -> None:
    shown = widgets.fit(text, width, right=right)
    assert get_cwidth(shown) == width
    assert not steers(shown)


@given(st.text(), st.integers(2, 40))
def test_what_is_wrapped_is_whole_and_never_too_wide(text: str, width: int) -> None:
    lines = widgets.wrap(text, width, most=10_000)
    assert all(get_cwidth(line) <= width and not steers(line) for line in lines)
    assert "".join(lines) == "".join(map(persistq.text.safe_text, text.splitlines()))


def test_a_text_too_long_says_how_much_is_left_out() -> None:
    assert widgets.wrap("x" * 5_000, 100)[-1] == "… 1,000 more characters"


@given(st.text(), st.integers(1, 30))
def test_of_a_path_the_end_is_kept(text: str, width: int) -> None:
    assert get_cwidth(widgets.tail(text, width)) <= width


def test_a_sparkline_hides_nothing_that_happened() -> None:
    assert widgets.sparkline([0, 1, 500, 1000], 10) == " ▁▄█"
    assert widgets.sparkline([1, 2, 3], 2) == "▅█"
    assert widgets.sparkline([], 5) == ""
    assert widgets.sparkline([0, 0], 5) == "  "


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (99_999, "99,999"), (123_456, "123k"), (999_499, "999k"), (1_000_000, "1.0M"), (12_345_678, "12.3M")],
)
def test_counts_in_few_characters(number: int, shown: str) -> None:
    assert widgets.compact(number) == shown


COLUMNS = (
    Column("id", 20, right=True), Column("status", 10), Column("queue", 12, yields=2), Column("prio", 5, yields=9),
    Column("item", 20, elastic=True), Column("error", 20, elastic=True, yields=1),
)  # fmt: skip


def table(count: int = 3, item: str = "item") -> Table:
    made = Table(COLUMNS)
    made.replace([Row(n, (n, "pending", "mail", 0, item, "error" * 9), n) for n in range(count, 0, -1)])
    return made


def text_of(made: Table, width: int, height: int = 10) -> list[str]:
    return ["".join(text for _, text in line) for line in made.lines(width, height, NOW)]


@pytest.mark.parametrize("width", range(10, 200, 7))
def test_every_line_of_a_table_has_the_terminal_s_width(width: int) -> None:
    for line in text_of(table(item="漢字" * 50), width):
        assert get_cwidth(line) == width


def test_columns_go_in_their_order_and_ids_stay_whole() -> None:
    wide, narrow = text_of(table(), 120), text_of(table(), 36)
    assert all(name in wide[0] for name in ("id", "status", "queue", "prio", "item", "error"))
    assert "prio" not in narrow[0]
    assert "queue" not in narrow[0]
    assert "item" in narrow[0]
    made = Table(COLUMNS)
    made.replace([Row(1, (12_345_678_901_234, "pending", "mail", 0, "x", None), 1)])
    assert "12345678901234 pending" in text_of(made, 40)[1]


def test_a_mark_is_a_sign_and_not_a_colour_alone() -> None:
    made = table()
    made.toggle()
    assert [line[0] for line in text_of(made, 60)[1:]] == ["*", " ", " "]
    assert made.marks == {3}
    made.move(-1)
    made.toggle()
    assert made.marks == set()


def test_an_empty_table_has_no_current_row_and_bears_every_move() -> None:
    made = table(0)
    for move in (lambda: made.move(5), lambda: made.to(-1), lambda: made.to(0), made.toggle):
        move()
    assert made.current is None
    assert len(text_of(made, 60)) == 1


@given(
    st.sampled_from(["pending", "failed", "crashed", "done"]), st.text(st.characters(categories=["L", "N"]), min_size=1)
)
def test_a_filter_shown_is_a_filter_that_means_the_same(status: str, word: str) -> None:
    which = filters.parse(f"state:{status} queue:mail 'item:{word} two' since:2024-02-29")
    assert filters.parse(filters.shown(which)) == which
    assert which.item == f"{word} two"
    assert which.since == NOW


def test_the_words_of_every_vocabulary_filter() -> None:
    assert filters.parse("state:dead,unprocessed").status == ("failed", "pending")
    assert filters.parse("http://host/x y").item == "http://host/x y", "only known fields are fields"
    assert filters.parse("queue:") == persistq.JobFilter()
    for line in ("state:odd", "since:lately", "state:crashed,done"):
        with pytest.raises(persistq.PersistQError):
            filters.parse(line)


def test_the_states_are_gone_through_and_begin_anew() -> None:
    which = persistq.JobFilter()
    seen = []
    for _ in filters.CYCLE:
        seen.append(filters.cycled(which))
        which = persistq.JobFilter.of(seen[-1])
    assert seen == ["pending", "processing", "failed", "crashed", "done", "cancelled", None]


def test_a_typed_line_is_taken_apart() -> None:
    what, given_ = registry.parse("cancel --all --queue='my mail' --state done --status failed --reason 'no more'")
    assert what.name == "cancel"
    assert given_.has("all")
    assert given_.statuses == ["done", "failed"]
    assert given_.options == {"all": "", "queue": "my mail", "reason": "no more"}
    assert registry.parse("queues pause mail")[1].words == ["mail"]


class _Queue:
    """A queue that answers, or not, as the test says."""

    def __init__(self) -> None:
        self.answers: list[object] = []
        self.clock = self
        self.ticks = 0.0

    def now(self) -> datetime:
        return START

    def monotonic(self) -> float:
        return self.ticks

    def consumers(self) -> list[object]:
        return []

    def counts(self) -> dict[str, int]:
        return {}


class _Look:
    def read(self, q: _Queue) -> object:
        answer = q.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_the_poller_waits_longer_after_each_failure_and_says_when() -> None:
    q, found, came = _Queue(), [], threading.Semaphore(0)

    def deliver(one: Seen | Trouble) -> None:
        found.append(one)
        came.release()

    q.answers = [persistq.DatabaseUnavailable("down") for _ in range(6)] + ["up", ValueError("odd")]
    poller = Poller(q, _Look(), deliver, 1.0)  # type: ignore[arg-type]
    poller.start()
    for turn in range(8):
        assert came.acquire(timeout=30)
        if turn < 7:
            poller.wake()
    assert poller.stop(30)
    troubles = [one for one in found if isinstance(one, Trouble)]
    assert [one.again_at for one in troubles] == [1, 2, 4, 8, 15, 15, 1]
    assert "down" in troubles[0].why
    assert troubles[-1].why == "ValueError: odd"
    assert isinstance(found[6], Seen)
    assert found[6].data == "up"


def test_the_interval_is_at_least_a_second() -> None:
    assert Poller(_Queue(), _Look(), lambda _found: None, 0.01).interval == 1.0  # type: ignore[arg-type]
