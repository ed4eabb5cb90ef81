"""The consumer process: its options, and items that mean no good."""

import os

import pytest

from persistq import jobfiles

from .yard import eventually


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--task", "nowhere"], "no task 'nowhere' is registered"),
        (["--app", "no_such_module"], "module 'no_such_module' cannot be imported"),
        (["--app", "broken"], "module 'broken' cannot be imported"),
        (["--app", "misspelt"], "module 'misspelt' cannot be imported"),
        (["--queue", "two words"], "a queue is named by"),
    ],
)
def test_a_bad_option_is_one_clear_line_and_78(make_yard, arguments, part):
    yard = make_yard()
    (yard.folder / "broken.py").write_text("def unfinished(:\n")
    (yard.folder / "misspelt.py").write_text("import persistq\n@persistq.tusk\ndef f(item): ...\n")
    consumer = yard.consumer(*arguments)
    assert consumer.wait() == 78, consumer.err[-500:]
    (line,) = consumer.err.splitlines()
    assert part in line


def test_drain_waits_for_retries_and_ends(make_yard):
    yard = make_yard(queue_backoff_seconds=0.3)
    yard.app("@persistq.task\ndef flaky(item):\n    if me().attempts < 3:\n        raise OSError('not yet')\n")
    yard.q.enqueue("item")
    assert yard.consumer("--task", "flaky", "--drain").wait() == 0
    (job,) = yard.jobs()
    assert (job.status, job.attempts, job.error) == ("done", 3, None)


def test_drain_waits_for_what_another_consumer_performs(make_yard):
    yard = make_yard()
    yard.app("@persistq.task\ndef slow(item):\n    note(item)\n    wait_for('gate')\n")
    yard.q.enqueue("item")
    yard.consumer("--task", "slow")
    eventually(yard.journal, "it runs")
    draining = yard.consumer("--task", "slow", "--drain")
    eventually(lambda: len(yard.q.consumers()) == 2, "the second is there")
    assert not draining.ended()
    yard.open("gate")
    assert draining.wait() == 0
    assert yard.all_done()


@pytest.mark.parametrize(("chosen", "found"), [("", 10_000), ("gc.set_threshold(500)", 500)])
def test_the_collector_looks_seldom_unless_a_module_of_tasks_says_how_often(make_yard, chosen, found):
    yard = make_yard()
    look = "return [gc.get_threshold()[0], gc.get_freeze_count()]"
    yard.app(f"import gc\n{chosen}\n@persistq.task\ndef look(item):\n    {look}\n")
    yard.q.enqueue("x")
    yard.consumer("--drain", "--task", "look").wait()
    threshold, frozen = yard.q.get_job(1).result
    assert threshold == found
    assert frozen > 10_000


def test_drain_of_nothing_ends(make_yard):
    assert make_yard().consumer("--drain").wait() == 0


@pytest.mark.parametrize("task", ["os.system", "subprocess.run", "evil.boom"])
def test_a_rows_task_name_imports_nothing(make_yard, task):
    yard = make_yard()
    (yard.folder / "evil.py").write_text("open('imported', 'w').close()\ndef boom(**k): open('called', 'w').close()\n")
    job_id = yard.q.enqueue('{"command": "touch called"}', task=task)
    assert yard.consumer("--drain").wait() == 0
    job = yard.q.get_job(job_id)
    assert job.status == "failed"
    assert f"no task '{task}'" in job.error
    assert not (yard.folder / "imported").exists()
    assert not (yard.folder / "called").exists()


def test_an_item_that_is_no_job_file_fails_for_good(make_yard):
    yard = make_yard()
    folder = yard.folder / "jobs"
    inside = jobfiles.create(folder, "text\n")
    outside = yard.folder / "outside.txt"
    outside.write_text("precious\n")
    (folder / "link").symlink_to(outside)
    (folder / "folder").symlink_to(yard.folder)
    os.mkfifo(folder / "fifo")
    os.link(outside, folder / "hard")
    planted = ["link", "folder/outside.txt", "fifo", "hard", "."]
    items = [str(folder / name) for name in planted]
    items += [str(outside), "../outside.txt", "jobs/../../outside.txt", "missing.txt", "", "/", "x" * 5000]
    ids = yard.q.enqueue_many(items)
    fine = yard.q.enqueue(str(inside))
    assert yard.consumer("--drain").wait() == 0
    for job_id in ids:
        job = yard.q.get_job(job_id)
        assert (job.status, job.attempts) == ("failed", 1), job.item[:80]
        assert "is no job file in" in job.error
    assert outside.read_text() == "precious\n"
    assert yard.q.get_job(fine).status == "done"


HOSTILE = [
    "one\ntwo", "carriage\rreturn\r\n", "\x1b[2J\x1b]0;title\x07", "äöü 日本語 🐟", "line\u2028para\u2029next\x85",
    "\u202eright to left", "tab\tand\vmore\f", "%s %d {} {0} \\n", "2026-01-01T00:00:00.000Z INFO forged",
]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_hostile_payloads_are_one_log_line_each(make_yard, encoding, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    yard = make_yard(max_attempts=1)
    yard.app("@persistq.task\ndef echo(item):\n    raise ValueError(item)\n")
    ids = yard.q.enqueue_many(HOSTILE)
    consumer = yard.consumer("--task", "echo", "--drain")
    assert consumer.wait() == 0
    assert "\x1b" not in consumer.out
    for job_id in ids:
        assert len(consumer.lines(f"job {job_id} (attempt 1 of 1) failed")) == 1, HOSTILE[job_id - 1]
    assert len(consumer.out.splitlines()) == len(ids) + 2  # and one for coming, one for going
    assert consumer.err == ""
    assert [job.error for job in yard.jobs()] == [" ".join(f"ValueError: {item}".split()) for item in HOSTILE]
