"""A commit that the disk cut off: repeated with the same key it gives one job, whoever dies meanwhile."""

from collections import Counter

import pytest

from .yard import integrity

pytestmark = pytest.mark.needs("strace")

DRIVER = """
import sys

def add(number, die_at_once):
    while True:
        try:
            note("kept", number, q.enqueue("item", unique_key=f"key {number}"))
        except persistq.OutcomeUnknown:
            note("unknown", number)
            if not die_at_once:
                continue
        os.kill(os.getpid(), signal.SIGKILL)

q = persistq.connect()  # opens nothing, but a child then has all imported that it needs
for number in range(int(sys.argv[1])):
    child = os.fork()
    if not child:
        add(number, number % 2)
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize("errors", [1, 2])
def test_an_io_error_in_commit_then_the_same_key_then_a_kill_gives_one_job(make_yard, long, errors):
    """Half of the producers repeat the call before they die; for the others somebody else does."""
    yard = make_yard()
    yard.q.enqueue("an existing database", unique_key="first")
    number = 100 if long else 20
    eio = ("-e", "trace=fsync,fdatasync", "-e", f"inject=fsync,fdatasync:error=EIO:when=1..{errors}")
    before = ("strace", "-f", "-qq", "--seccomp-bpf", "-o", "trace", *eio)
    assert yard.script(DRIVER, str(number), before=before).wait() == 0

    noted = [line.split() for line in yard.journal()]
    unknown = Counter(int(one) for word, one, *_ in noted if word == "unknown")
    assert unknown == {one: 1 if one % 2 else errors for one in range(number)}, "each was struck"
    kept = {int(one): int(job_id[0]) for word, one, *job_id in noted if word == "kept"}
    assert kept.keys() == {*range(0, number, 2)}

    ids = [yard.q.enqueue("item", unique_key=f"key {one}") for one in range(number)]
    assert {one: ids[one] for one in kept} == kept
    found = Counter(job.unique_key for job in yard.jobs())
    assert found == {"first": 1} | {f"key {one}": 1 for one in range(number)}
    assert integrity(yard.q) == ["ok"]
    assert yard.q.tally_drift() == {}
