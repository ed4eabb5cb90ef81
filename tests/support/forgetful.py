"""A pytest plugin for mutation testing: each test compiles its statements itself.

They are compiled once for a process otherwise, so that of all the tests that need a statement only the first would be
known to need the function that builds it.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from persistq.storage.statements import Statement

_used: set[Statement] = set()
_look_up = Statement._for


def _noted(self: Statement, *arguments: Any) -> Any:
    _used.add(self)
    return _look_up(self, *arguments)


Statement._for = _noted  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Begin without a compiled statement."""
    for statement in _used:
        statement._compiled.clear()
    _used.clear()
    yield
