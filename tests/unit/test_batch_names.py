"""Names of batches: read as they were made, whoever the owner says that he is."""

import re

import pytest

from persistq.batch import BatchName, BatchStatus

MADE = 1_700_000_000_123_456_789


def test_a_new_name_is_nobody_elses():
    name = BatchName.new(7)
    assert re.fullmatch(r"loading_0{18}7_[0-9a-f]{16}\.db", name.text)
    assert name.id != BatchName.new(7).id
    assert name == BatchName(7, name.id, BatchStatus.LOADING, None, name.text)
    assert BatchName.parse(name.text) == name


@pytest.mark.parametrize(
    ("owner", "shown"),
    [(7, "7"), ("", "-"), ("A.b-9", "A.b-9"), ("a b/../c\n", "a-b-..-c-"), ("ü", "-"), ("x" * 100, "x" * 64)],
)
def test_an_owner_is_shown_in_letters_that_do_no_harm(owner, shown):
    made = BatchName.new(MADE)
    name = made.become(BatchStatus.UNLOAD, owner)
    assert name == BatchName(MADE, made.id, BatchStatus.UNLOAD, shown, f"unload_{MADE}_{made.id}_{shown}.db")
    assert BatchName.parse(name.text) == name
    assert name.become(BatchStatus.READY).text == f"ready_{MADE}_{made.id}.db"


def test_a_number_makes_another_name_of_the_same_batch():
    name = BatchName.new(MADE).become(BatchStatus.INVALID, "gone")
    second = name.numbered(1).numbered(2)
    assert second == BatchName(MADE, f"{name.id}.2", BatchStatus.INVALID, None, f"invalid_{MADE}_{name.id}.2.db")
    assert BatchName.parse(second.text) == second
