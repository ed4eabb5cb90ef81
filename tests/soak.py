"""Kill storm: producers and consumers die at random moments, then every acknowledged job is counted: ``make soak``.

It exits 0 when nothing was lost, and prints what it saw. The children are forked from this process,
which has imported everything and opened nothing, so that hundreds of lives fit into a minute.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from persistq.consumer import consumer

import persistq

SETTINGS = {"MAX_ATTEMPTS": "1000", "TIMEOUT_SECONDS": "1", "QUEUE_RECOVERY_SECONDS": "0.5", "QUEUE_GRACE_SECONDS": "1"}


@persistq.task(name="note")
def note(item: str) -> None:
    """Write down the delivery with one append, which no kill can tear."""
    job = persistq.current_job()
    assert job is not None
    journal(f"{job.id} {job.fence} {item}\n", "deliveries")


def journal(line: str, name: str) -> None:
    handle = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, line.encode())
    os.close(handle)


def produce() -> None:
    q = persistq.connect()
    while True:
        name = os.urandom(8).hex()
        try:
            job_id = q.enqueue(name, unique_key=name)
        except persistq.DatabaseUnavailable:
            continue
        journal(f"{job_id} {name}\n", "acknowledged")
        time.sleep(0.002)


def consume() -> None:
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the rest of this life
    os._exit(consumer.main(["--task", "note", "--concurrency", "4"]))


def spawn(role: object) -> int:
    child = os.fork()
    if child:
        return child
    try:
        role()  # type: ignore[operator]
    finally:
        os._exit(1)


def storm(seconds: float, chance: random.Random) -> int:
    """Kill and replace random children until the time is over; return how many were killed."""
    roles = [produce] * 3 + [consume] * 4
    living = {spawn(role): role for role in roles}
    end, kills = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        time.sleep(chance.expovariate(8))
        victim = chance.choice(list(living))
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        kills += 1
        role = living.pop(victim)
        living[spawn(role)] = role
    for child in living:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return kills


def verdict() -> list[str]:
    """Finish what is left, then return every broken promise."""
    assert spawn_and_wait(lambda: os._exit(consumer.main(["--task", "note", "--drain"]))) == 0
    acknowledged = dict(line.split() for line in Path("acknowledged").read_text().splitlines())
    deliveries = [line.split() for line in Path("deliveries").read_text().splitlines()]
    q = persistq.connect()
    rows = {str(job["id"]): job for job in q.get_all_items()}
    wrong = [f"job {job_id} was acknowledged and is gone" for job_id in acknowledged if job_id not in rows]
    wrong += [f"job {i} is {row['status']}" for i, row in rows.items() if row["status"] != "done"]
    wrong += [
        f"job {i} holds {rows[i]['item']}" for i, name in acknowledged.items() if i in rows and rows[i]["item"] != name
    ]
    wrong += [f"job {i} at fence {f} twice" for (i, f), n in Counter((i, f) for i, f, _ in deliveries).items() if n > 1]
    wrong += [f"job {i} is done and was never delivered" for i in rows.keys() - {i for i, _, _ in deliveries}]
    wrong += q.database.check() + [f"counts are off: {q.tally_drift()}"] * bool(q.tally_drift())
    again = len(deliveries) - len({i for i, _, _ in deliveries})
    print(f"{len(acknowledged):,} jobs acknowledged, {len(deliveries):,} deliveries, {again:,} of them again")
    return wrong


def spawn_and_wait(role: object) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(spawn(role), 0)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    os.environ.update(SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        kills = storm(options.seconds, random.Random(options.seed))
        wrong = verdict()
        print(f"{kills:,} kills, seed {options.seed}: {len(wrong)} broken promises")
        print(*wrong[:20], sep="\n")
        os.chdir("/")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
