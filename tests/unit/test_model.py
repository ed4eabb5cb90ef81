"""The words and values that the library hands out or takes."""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

import persistq
from persistq import JobFilter, JobStatus, NewJob, UnknownStatus

WORDS = {
    "pending": ["pending", "unprocessed", "Unprocessed", "queued", "ready", " Pending "],
    "processing": ["processing", "under_process", "Under_Process", "Under Process", "under-process", "running"],
    "done": ["done", "DONE", "Processed", "processed", "completed", "Completed"],
    "failed": ["failed", "Manual_intervention", "manual_intervention", "Manual intervention", "dead"],
    "cancelled": ["cancelled", "canceled", "CANCELLED"],
}


@pytest.mark.parametrize(("word", "status"), [(word, status) for status, words in WORDS.items() for word in words])
def test_each_word_of_each_vocabulary_means_a_status(word: str, status: str) -> None:
    assert JobStatus.parse(word) == status


@pytest.mark.parametrize("word", ["", "finished!", "crashed", "do ne", "pending;", "données", "\0"])
def test_any_other_word_is_refused_with_the_known_ones(word: str) -> None:
    with pytest.raises(UnknownStatus, match="manual_intervention"):
        JobStatus.parse(word)


def test_the_constants_are_strings() -> None:
    constants = (persistq.PENDING, persistq.PROCESSING, persistq.DONE, persistq.FAILED, persistq.CANCELLED)
    assert constants == ("pending", "processing", "done", "failed", "cancelled")
    assert f"{persistq.DONE}" == "done"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (None, JobFilter()),
        ("Processed", JobFilter(status=(JobStatus.DONE,))),
        (["queued", "dead"], JobFilter(status=(JobStatus.PENDING, JobStatus.FAILED))),
        ("crashed", JobFilter(crashed=True)),
        (["Crashed"], JobFilter(crashed=True)),
        (JobStatus.DONE, JobFilter(status=(JobStatus.DONE,))),
    ],
)
def test_a_filter_takes_words(words: Any, expected: JobFilter) -> None:
    assert JobFilter.of(words) == expected


@pytest.mark.parametrize("words", ["nonsense", ["done", "nonsense"], ["crashed", "done"]])
def test_a_filter_refuses_what_it_does_not_know(words: Any) -> None:
    with pytest.raises(UnknownStatus):
        JobFilter.of(words)


def test_values_are_frozen() -> None:
    new: Any = NewJob(item="x")
    with pytest.raises(FrozenInstanceError):
        new.item = "y"
    assert new.evolve(queue="mail") == NewJob(item="x", queue="mail")
