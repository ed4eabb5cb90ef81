"""Back-off: exponential, capped, with full jitter. Retry: a task's own policy."""

import math
import random
from datetime import timedelta
from typing import Any

import pytest

from persistq import ConfigError, Retry
from persistq.model import check_span
from persistq.retry import Backoff, gives_up

USUAL = Backoff(1, 600)


@pytest.mark.parametrize(
    ("attempts", "ceiling"), [(0, 1), (1, 1), (2, 2), (3, 4), (10, 512), (11, 600), (64, 600), (10**9, 600)]
)
def test_the_ceiling_doubles_up_to_the_cap(attempts: int, ceiling: float) -> None:
    assert Backoff(1, 600).ceiling(attempts) == ceiling


@pytest.mark.parametrize(("base", "cap"), [(0, 600), (5, 0), (0, 0)])
def test_no_base_or_no_cap_is_no_wait(base: float, cap: float) -> None:
    assert Backoff(base, cap).delay(5) == 0
    assert Backoff(base, cap).ceiling(10**12) == 0


def test_a_cap_below_the_base_is_the_cap() -> None:
    assert Backoff(base=10, cap=2).ceiling(1) == 2


def test_the_jitter_is_full_and_even() -> None:
    rng = random.Random(7)
    tenths = [0] * 10
    for _ in range(10_000):
        delay = Backoff(1, 600).delay(4, rng)
        assert 0 <= delay <= 8
        tenths[min(int(delay / 0.8), 9)] += 1
    assert max(abs(count - 1000) for count in tenths) < 130  # four standard deviations


def test_a_huge_attempt_waits_no_longer_than_the_cap() -> None:
    assert 0 <= Backoff(3600, 600).delay(10**12, random.Random(1)) <= 600


@pytest.mark.parametrize(
    ("attempts", "limit", "permanent", "over"),
    [
        (1, 3, False, False), (2, 3, False, False), (3, 3, False, True),
        (4, 3, False, True), (1, 3, True, True), (1, 1, False, True),
    ],
)  # fmt: skip
def test_a_job_is_given_up_at_its_limit_or_for_good(attempts: int, limit: int, permanent: bool, over: bool) -> None:
    assert gives_up(attempts, limit, permanent=permanent) is over
    assert gives_up(attempts, limit) is (attempts >= limit)


@pytest.mark.parametrize(("attempts", "ceiling"), [(1, 2), (2, 6), (3, 18), (4, 30), (10**12, 30)])
def test_another_factor_makes_another_ceiling(attempts: int, ceiling: float) -> None:
    assert Backoff(2, 30, 3).ceiling(attempts) == ceiling


def test_a_factor_of_one_stays_where_it_is() -> None:
    assert Backoff(5, 600, 1).ceiling(10**9) == 5


class Gone(LookupError):
    """An error below another."""


@pytest.mark.parametrize(
    ("policy", "given_up"),
    [
        (Retry(), []),
        (Retry(give_up_on=LookupError), [KeyError, Gone]),
        (Retry(give_up_on=(Gone, OSError)), [Gone, OSError, ConnectionError]),
        (Retry(retry_on=OSError), [ValueError, KeyError, Gone, SystemExit]),
        (Retry(retry_on=Exception, give_up_on=ConnectionError), [ConnectionError, SystemExit]),
        (Retry(retry_on=()), [ValueError, KeyError, Gone, OSError, ConnectionError, SystemExit]),
    ],
)  # fmt: skip
def test_a_policy_tells_which_errors_are_for_good(policy: Retry, given_up: list[type[BaseException]]) -> None:
    every = (ValueError, KeyError, Gone, OSError, ConnectionError, SystemExit)
    assert {error for error in every if policy.gives_up_on(error())} == set(given_up)


def test_a_policy_without_waits_leaves_them_to_the_settings() -> None:
    assert Retry(give_up_on=ValueError).wait(3, ValueError(), USUAL) is None


@pytest.mark.parametrize(
    ("policy", "ceiling"),
    [
        (Retry(base=10), 40), (Retry(base=timedelta(seconds=10)), 40), (Retry(base=10, factor=1), 10),
        (Retry(base=10, cap=15), 15), (Retry(factor=10), 100), (Retry(cap=2), 2), (Retry(base=1000), 1000),
    ],
)  # fmt: skip
def test_a_policy_s_own_back_off_takes_the_rest_from_the_settings(policy: Retry, ceiling: float) -> None:
    waits = [policy.wait(3, ValueError(), USUAL) or 0 for _ in range(2000)]
    assert 0.95 * ceiling < max(waits) <= ceiling
    assert min(waits) < 0.05 * ceiling


@pytest.mark.parametrize("factor", [1, 1.0, 1.5, 10])
def test_a_factor_is_a_number_from_one_up(factor: float) -> None:
    assert 0 <= (Retry(factor=factor).wait(3, ValueError(), USUAL) or 0) <= factor**2


def test_a_fixed_delay_is_just_that() -> None:
    assert Retry(delay=7).wait(3, ValueError(), USUAL) == 7
    assert Retry(delay=timedelta(minutes=1)).wait(3, ValueError(), USUAL) == 60


def test_a_function_decides_by_attempt_and_error() -> None:
    policy = Retry(delay=lambda attempt, error: 100 * attempt + len(str(error)))
    assert policy.wait(2, ValueError("abc"), USUAL) == 203


def test_a_function_may_leave_it_to_the_back_off() -> None:
    assert Retry(delay=lambda _attempt, _error: None).wait(1, ValueError(), USUAL) is None
    assert (Retry(delay=lambda _attempt, _error: None, base=5).wait(1, ValueError(), USUAL) or 9) <= 5


BAD: list[dict[str, Any]] = [
    {"base": -1}, {"base": math.nan}, {"base": "5"}, {"base": True}, {"cap": math.inf}, {"cap": -1}, {"cap": 1e300},
    {"factor": 0.5}, {"factor": math.inf}, {"factor": math.nan}, {"factor": "2"}, {"factor": True},
    {"delay": -1}, {"delay": "soon"}, {"delay": 5, "base": 1}, {"delay": 5, "cap": 1},
    {"retry_on": "ValueError"}, {"retry_on": [ValueError]}, {"retry_on": int}, {"retry_on": (ValueError, 3)},
    {"give_up_on": ValueError("an instance")}, {"give_up_on": None},
]  # fmt: skip


@pytest.mark.parametrize("fields", BAD, ids=str)
def test_what_is_no_policy_is_refused_at_once(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"\ba retry\b.*\b{next(iter(fields))}\b"):
        Retry(**fields)


def test_the_refusal_shows_what_is_no_error() -> None:
    with pytest.raises(ConfigError, match=r"\ba retry's retry_on is .*, not 'ValueError'"):
        Retry(retry_on="ValueError")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"of base, factor and cap, not both$"):
        Retry(delay=5, factor=2)


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "value", [-1, math.nan, 1e300, "5", None, True, [], Unprintable(), timedelta(days=-1)], ids=type
)
def test_what_is_no_delay_is_refused_whatever_it_is(value: object) -> None:
    with pytest.raises(ConfigError, match="a wait is 0 to a century"):
        check_span("a wait", value)


@pytest.mark.parametrize("returned", [-1, math.nan, "5", True])
def test_a_function_that_returns_no_delay_is_an_error(returned: Any) -> None:
    with pytest.raises(ConfigError, match=r"\ba retry's delay\b"):
        Retry(delay=lambda _attempt, _error: returned).wait(1, ValueError(), USUAL)


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Retry().base = 5  # type: ignore[misc]
