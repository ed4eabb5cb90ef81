"""Attempt and error in, delay or giving up out; pure."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from .clock import Seconds, seconds
from .errors import ConfigError
from .model import check_span, shown

Errors = type[BaseException] | tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off with full jitter: a random wait up to ``base * factor ** (attempt - 1)``.

    Full jitter spreads a burst of failures over the whole span, so that they do not come back as
    the same burst. Seconds.
    """

    base: float = 1.0
    cap: float = 600.0
    factor: float = 2.0

    def ceiling(self, attempts: int) -> float:
        """Return the longest wait after the given number of attempts."""
        try:
            return min(self.cap, self.base * float(self.factor) ** (max(attempts, 1) - 1))
        except OverflowError:  # long after the cap has been reached
            return self.cap if self.base else 0.0

    def delay(self, attempts: int, rng: random.Random | None = None) -> float:
        """Return the wait before the next attempt."""
        return (rng or random).uniform(0, self.ceiling(attempts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """What a task does after an error: ``@task(retry=Retry(base=5, give_up_on=ValueError))``.

    How long to wait before the next attempt:

    - ``base``, ``factor``, ``cap`` make a back-off of the task's own: a random wait of up to ``base``
      seconds after the first attempt, ``factor`` times as long after each further one, never longer
      than ``cap``. What is not given is as the settings have it (but no cap below ``base``), and a
      factor of 2.
    - ``delay`` takes the place of the back-off: a fixed wait in seconds or as a timedelta, or a
      function of the attempt's number (1 is the first) and the error that returns one, or None for
      the back-off. So an error may say for itself when to come back:
      ``delay=lambda attempt, error: getattr(error, "retry_after", None)``.

    Which errors are worth another attempt:

    - those of ``retry_on``, if it is given; any other fails the job for good;
    - none of ``give_up_on``, which goes before ``retry_on``.

    Both take an exception class or a tuple of them, and mean subclasses too. A timeout counts as
    ``TimeoutError``. However an error is meant, the task's ``max_attempts`` is the end of it, and
    ``PermanentError`` always is.

    Raises:
        ConfigError: a value is not usable.
    """

    base: Seconds | None = None
    factor: float | None = None
    cap: Seconds | None = None
    delay: Seconds | Callable[[int, BaseException], Seconds | None] | None = None
    retry_on: Errors | None = None
    give_up_on: Errors = ()

    def __post_init__(self) -> None:
        for name in ("base", "cap"):
            if (span := getattr(self, name)) is not None:
                check_span(f"a retry's {name}", span)
        if self.factor is not None and not (_is_number(self.factor) and 1 <= self.factor < math.inf):
            raise ConfigError(f"a retry's factor is a number from 1 up, not {self.factor!r:.40}")
        if self.delay is not None:
            if (self.base, self.factor, self.cap) != (None, None, None) and not callable(self.delay):
                raise ConfigError("a retry has a fixed delay, or a back-off of base, factor and cap, not both")
            if not callable(self.delay):
                check_span("a retry's delay", self.delay)
        _check_errors("retry_on", () if self.retry_on is None else self.retry_on)
        _check_errors("give_up_on", self.give_up_on)

    def gives_up_on(self, error: BaseException) -> bool:
        """Return whether the error fails a job for good."""
        wanted = self.retry_on is None or isinstance(error, self.retry_on)
        return not wanted or isinstance(error, self.give_up_on)

    def wait(self, attempts: int, error: BaseException, usual: Backoff) -> float | None:
        """Return the seconds before the next attempt; None means the ``usual`` back-off.

        Raises:
            ConfigError: the function ``delay`` returned something else. What it raises itself passes.
        """
        delay = self.delay(attempts, error) if callable(self.delay) else self.delay
        if delay is not None:
            return check_span("a retry's delay", delay)
        if (self.base, self.factor, self.cap) == (None, None, None):
            return None
        base = usual.base if self.base is None else seconds(self.base)
        cap = max(usual.cap, base) if self.cap is None else seconds(self.cap)
        return Backoff(base, cap, usual.factor if self.factor is None else self.factor).delay(attempts)


def gives_up(attempts: int, max_attempts: int, *, permanent: bool = False) -> bool:
    """Return whether a job that has had ``attempts`` deliveries waits for a person now."""
    return permanent or attempts >= max_attempts


def _check_errors(name: str, errors: object) -> None:
    for one in errors if isinstance(errors, tuple) else (errors,):
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise ConfigError(f"a retry's {name} is an exception class or a tuple of them, not {shown(one)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
