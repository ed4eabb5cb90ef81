"""A bar on the terminal for what takes long; nothing where nobody looks."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_WIDTH = 30


@contextmanager
def bar(total: int, label: str) -> Iterator[Callable[[int], None]]:
    """Yield what shows how much of ``total`` is done; the line is gone in the end."""
    if not sys.stderr.isatty():
        yield lambda _done: None
        return

    def show(done: int) -> None:
        filled = _WIDTH * done // max(total, 1)
        line = f"{label} [{'#' * filled}{'.' * (_WIDTH - filled)}] {done:,} of {total:,}"
        print(f"\r{line}", end="", file=sys.stderr, flush=True)

    try:
        show(0)
        yield show
    finally:
        print(f"\r{' ' * (len(label) + _WIDTH + 40)}\r", end="", file=sys.stderr, flush=True)
