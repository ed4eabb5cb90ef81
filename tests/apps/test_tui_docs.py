"""The screens in the manual are those that the manager draws now."""

import pytest
from support.tui_docs import PAGE, page


@pytest.fixture(autouse=True)
def no_colour_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn is text, whatever the terminal of whoever runs this is."""
    monkeypatch.setenv("USER", "ann")


def test_the_screens_in_the_manual_are_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "run: make docs"
