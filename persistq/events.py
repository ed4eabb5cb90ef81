"""span() and emit(): logging, metrics and tracing subscribe here."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from .clock import SystemClock

Observer = Callable[[str, dict[str, Any]], None]
"""Called with a name such as ``queue.enqueue`` or ``job.failed`` and its fields."""

Carrier = Callable[[], dict[str, Any] | None]
"""Called before jobs are enqueued; what it returns travels with them, as JSON values."""

_log = logging.getLogger(__name__)
_observers: list[tuple[Observer, frozenset[str]]] = []
#: Who hears an event, by its name, as far as anybody has asked. Each change of observers begins a new one, so that
#: whoever is asking at that moment leaves its answer in the old.
_hearing: dict[str, tuple[Observer, ...]] = {}
_carriers: list[Carrier] = []


def subscribe(observer: Observer, *names: str) -> Callable[[], None]:
    """Call ``observer`` for every event from now on, or for those with one of the ``names``.

    The function returned ends that.
    """
    entry = observer, frozenset(names)
    _change(_observers.append, entry)
    return lambda: _change(_observers.remove, entry)


def _change(act: Callable[[tuple[Observer, frozenset[str]]], None], entry: tuple[Observer, frozenset[str]]) -> None:
    global _hearing
    act(entry)
    _hearing = {}


def carry(carrier: Carrier) -> Callable[[], None]:
    """Let what ``carrier`` returns travel with every job from now on, in its history as the event ``enqueued``.

    The function returned ends that.
    """
    _carriers.append(carrier)
    return lambda: _carriers.remove(carrier)


def carried() -> dict[str, Any]:
    """Return what is to travel with the jobs that are enqueued now."""
    found: dict[str, Any] = {}
    for carrier in tuple(_carriers):
        try:
            found |= carrier() or {}
        except Exception:  # noqa: BLE001 - as below
            _log.warning("what travels with a job could not be had", exc_info=True)
    return found


def emit(name: str, **fields: Any) -> None:
    """Tell every observer. One that raises is reported in the log, and hurts nobody."""
    for observer in _who_hears(name):
        try:
            observer(name, fields)
        except Exception:  # noqa: BLE001 - an observer must never break a job
            _log.warning("an observer of %s raised", name, exc_info=True)


def _who_hears(name: str) -> tuple[Observer, ...]:
    hearing = _hearing
    try:
        return hearing[name]
    except KeyError:
        found = tuple(observer for observer, names in tuple(_observers) if not names or name in names)
        hearing[name] = found
        return found


def span(name: str, **fields: Any) -> AbstractContextManager[dict[str, Any]]:
    """Emit ``name`` when the block ends, with its ``seconds`` and, if it raised, its ``error``.

    The block may add fields to the dict it is given.
    """
    return _span(name, fields) if _who_hears(name) else nullcontext(fields)


@contextmanager
def _span(name: str, fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    clock = SystemClock()
    began = clock.monotonic()
    try:
        yield fields
    except BaseException as error:
        fields["error"] = type(error).__name__
        raise
    finally:
        emit(name, **fields, seconds=clock.monotonic() - began)
