"""What the suites share: a clock that obeys, and small helpers."""
