"""Errors: the docstring is the message, and describing one never raises another."""

import pytest

import persistq
from persistq.errors import describe

PUBLIC = [getattr(persistq, name) for name in persistq.__all__]
ERRORS = [one for one in PUBLIC if isinstance(one, type) and issubclass(one, persistq.PersistQError)]


@pytest.mark.parametrize("error", ERRORS)
def test_the_docstring_is_the_message(error: type[persistq.PersistQError]) -> None:
    summary = (error.__doc__ or "").partition("\n")[0]
    assert summary.endswith(".")
    assert str(error()) == summary
    assert str(error("job 3 is done")) == f"{summary.removesuffix('.')}: job 3 is done"


def test_every_error_of_the_design_is_importable_and_has_one_parent() -> None:
    names = (
        "JobNotFound", "IllegalTransition", "LeaseLost", "DuplicateJob", "QueueFull", "OutcomeUnknown",
        "DatabaseUnavailable", "SchemaMismatch", "ConfigError", "PayloadError",
    )  # fmt: skip
    assert {name for name in names if not issubclass(getattr(persistq, name), persistq.PersistQError)} == set()


def test_every_public_name_exists() -> None:
    assert [name for name in persistq.__all__ if not hasattr(persistq, name)] == []


def test_a_duplicate_names_the_first_job() -> None:
    assert persistq.DuplicateJob("it exists", 7).job_id == 7


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


class Unprintable(Exception):
    """An exception as careless code writes them."""

    def __str__(self) -> str:
        raise RuntimeError("no text for you")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("disk on fire", "disk on fire"),
        ("  \n", "no reason given"),
        (ValueError("bad"), "ValueError: bad"),
        (ValueError(), "ValueError"),
        (SystemExit(1), "SystemExit: 1"),
    ],
)
def test_an_error_is_described_by_one_line(error: BaseException | str, line: str) -> None:
    assert describe(error) == (line, None)


@pytest.mark.parametrize("error", ["first\nsecond", ValueError("first\nsecond"), ValueError("first\r\nsecond")])
def test_a_message_of_many_lines_becomes_one(error: BaseException | str) -> None:
    assert len(describe(error)[0].splitlines()) == 1


def test_a_raised_error_comes_with_its_traceback() -> None:
    line, trace = describe(raised(KeyError("user")))
    assert line == "KeyError: 'user'"
    assert trace is not None
    assert "test_errors.py" in trace


def test_an_error_that_cannot_be_printed_is_described_all_the_same() -> None:
    line, _trace = describe(raised(Unprintable()))
    assert line.startswith("Unprintable")
