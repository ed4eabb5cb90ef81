"""Whatever stands in an item, a batch file, a file's name or a filter: the documented errors, or the data unaltered."""

import json
import re
import string
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.batches import drain, fill, only
from support.cli import invoke
from support.jobs import Queue, claim

import persistq
from persistq import Done, Failed, PayloadError, PersistQError, codec, jobfiles
from persistq.batch import BatchName, BatchStatus
from persistq.tasks import Cancellation
from persistq.worker import JobSource

# The fixtures are read only, or each example takes a place of its own in them.
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
few = settings(shared, max_examples=25)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
CUTS = st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 6), st.text(st.sampled_from('[]{}",:\\0eE.-nNu \t'))))
ENCODABLE = st.text(st.characters(exclude_categories=["Cs"]))


def spoil(text: str, cuts: list[tuple[int, int, str]]) -> str:
    """Replace some characters at some places by others."""
    for place, length, new in cuts:
        place %= len(text) + 1
        text = text[:place] + new + text[place + length :]
    return text


SPOILT = st.builds(spoil, st.builds(json.dumps, JSON), CUTS)


# The payload decoder


@given(SPOILT | st.text())
@example('{"a":1,"a":1}')
@example("1" * 5000)
@example("-1e400")
@example('"\\ud800"')
def test_text_is_read_as_what_it_is_or_refused(text: str) -> None:
    try:
        value = codec.loads(text)
    except PayloadError:
        return
    assert json.dumps(value) == json.dumps(json.loads(text))


@pytest.fixture
def source(queue: Queue) -> Iterator[JobSource]:
    made = JobSource(queue, name="w", queues=(), default_task="takes", concurrency=1)
    yield made
    made.close()


@shared
@given(items=st.lists(SPOILT | st.builds(lambda value: json.dumps({"a": value}), JSON) | st.text(), min_size=1))
def test_a_handler_gets_what_was_enqueued_or_nothing(queue: Queue, source: JobSource, items: list[str]) -> None:
    got: list[Any] = []
    name = f"takes{len(persistq.tasks.names())}"
    persistq.task(name=name)(lambda a: got.append(a))
    queue.enqueue("{}", task=name)
    job = claim(queue)
    for item in items:
        got.clear()
        outcome = source.perform(replace(job, item=item), Cancellation())
        if isinstance(outcome, Done):
            assert json.dumps({"a": got[0]}) == json.dumps(json.loads(item))
        else:
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, PayloadError)
            assert outcome.permanent
            assert not got
    queue.complete(job)


@shared
@given(item=ENCODABLE, key=st.none() | ENCODABLE, name=st.text() | st.just("q"), priority=st.integers())
def test_what_is_enqueued_comes_back_as_it_was(
    queue: Queue, item: str, key: str | None, name: str, priority: int
) -> None:
    try:
        job_id = queue.enqueue(item, name, priority=priority, unique_key=key)
    except PersistQError:
        return
    job = queue.get_job(job_id)
    if key is None:
        assert (job.item, job.queue, job.priority) == (item, name, priority)
    assert job.unique_key == key


# The batch opener

ITEMS = [{"n": n, "text": "x" * (n % 50)} for n in range(60)]
_places = count()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a sound batch of three blocks."""
    folder = tmp_path_factory.mktemp("sound")
    fill(folder, ITEMS, block_items=20)
    return only(folder).read_bytes()


EDITS = st.lists(st.tuples(st.integers(0, 1 << 30), st.binary(min_size=1, max_size=40)), max_size=4)
FILES = st.tuples(EDITS, st.none() | st.integers(0, 1 << 30), st.binary(max_size=40))


def damage(data: bytes, how: tuple[list[tuple[int, bytes]], int | None, bytes]) -> bytes:
    """Write over some places, cut it off at one, or add something."""
    edits, end, more = how
    spoilt = bytearray(data)
    for place, new in edits:
        place %= len(data)
        spoilt[place : place + len(new)] = new
    return bytes(spoilt[: None if end is None else end % len(data)] + more)


@few
@given(how=FILES, word=st.sampled_from(["ready", "loading", "unload"]))
def test_a_spoilt_batch_gives_its_items_unaltered_or_is_put_aside(
    tmp_path: Path, sound: bytes, how: Any, word: str
) -> None:
    root = tmp_path / str(next(_places))
    fill(root, ["good"])
    path = root / "q" / f"{word}_1700000000000000000_00000000{'_7' if word == 'unload' else ''}.db"
    path.write_bytes(damage(sound, how))
    path.chmod(0o600)
    persistq.batch.recover(root, "q")
    got = drain(root)
    assert got.count("good") == 1
    got.remove("good")
    assert got == ITEMS[: len(got)]
    whole = len(got) == len(ITEMS) or word == "loading"  # what its producer had not finished may end anywhere
    assert whole or list(root.rglob("invalid_*"))
    assert drain(root) == []


# The file-name parser

WORDS = [*BatchStatus, "load", "avail", "chosen", "assigned", "invalid_file"]
PIECES = st.lists(st.sampled_from(["_", ".db", "-", ".", "/", "\0", "\n", "temp_hold", "0" * 8, "1" * 19, *WORDS]))
OURS = re.compile(r"(loading|ready|unload|invalid)_\d{19}_[0-9a-f-]{8,36}(\.\d+)?(_[A-Za-z0-9.-]{1,64})?\.db", re.ASCII)
NAMES = st.from_regex(OURS, fullmatch=True) | st.builds("".join, PIECES) | st.text()


@few
@given(name=NAMES, status=st.sampled_from(list(BatchStatus)), owner=st.none() | st.text() | st.integers())
def test_a_name_is_none_of_ours_or_stays_a_name_in_its_folder(name: str, status: BatchStatus, owner: Any) -> None:
    found = BatchName.parse(name)
    if found is None:
        return
    assert found.text == name
    assert not {"/", "\0", "\n"} & set(name)
    become = found.become(status, owner)
    again = BatchName.parse(become.text)
    assert again is not None
    assert (again.created, again.id, again.status, again.owner) == (found.created, found.id, status, become.owner)
    assert set(become.text) <= set(string.ascii_letters + string.digits + "_.-")
    assert BatchName.parse(found.numbered(2).text) is not None


@pytest.mark.parametrize(
    "spoilt", ["ready_170000000000000000\u0660_00000000.db", "ready_1700000000_0000000a.db_\u0661"]
)
def test_a_digit_of_another_script_is_no_digit_of_ours(spoilt: str) -> None:
    assert BatchName.parse(spoilt) is None


PATHS = st.lists(
    st.sampled_from(["..", ".", "/", "//", "~", "inside.txt", "outside.txt", "folder", "link", "x" * 300, "\n", "-rf"])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
)  # fmt: skip


@shared
@given(parts=PATHS, glue=st.sampled_from(["", "/"]), absolute=st.booleans())
def test_a_path_leads_to_a_file_inside_or_is_refused(
    tmp_path: Path, parts: list[str], glue: str, absolute: bool
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside.txt"
    (root / "folder").mkdir(parents=True, exist_ok=True)
    for path in (outside, root / "inside.txt", root / "folder" / "inside.txt"):
        path.write_text("kept")
    if not (root / "link").is_symlink():
        (root / "link").symlink_to(tmp_path)
    path = (f"{root}/" if absolute else "") + glue.join(parts)
    before = {found for found in root.rglob("*") if found.is_file()}
    try:
        jobfiles.check(root, path)
    except jobfiles.NotAJobFile:
        with pytest.raises(jobfiles.NotAJobFile):
            jobfiles.delete(root, path)
        gone = set()
    else:
        jobfiles.delete(root, path)
        gone = before - {found for found in root.rglob("*") if found.is_file()}
        assert len(gone) == 1
    assert gone <= {root / "inside.txt", root / "folder" / "inside.txt"}
    assert outside.read_text() == "kept"


# The filters of the command line

HOSTILE = [
    "plain", "100%", "100_", "a'b", 'a"b', "';DROP TABLE jobs;--", "[x]", "\\", "\\%", "/%", "*", "?", "$(id)", "--x",
]  # fmt: skip
TEXTS = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
OPTIONS = st.dictionaries(st.sampled_from(["status", "queue", "task", "consumer", "since", "until", "limit"]), TEXTS)
DOCUMENTED = {0, 1, 2, 3, 4, 5, 6}


def ascii_lower(text: str) -> str:
    return "".join(char.lower() if char.isascii() else char for char in text)


@few
@given(item=TEXTS, options=OPTIONS)
def test_a_filter_is_text_and_nothing_else(queue: Queue, path: Path, item: str, options: dict[str, str]) -> None:
    if not queue.list_jobs(limit=1):
        queue.enqueue_many(HOSTILE)
    words = [f"--{name}={value}" for name, value in options.items()]
    result = invoke("--db", str(path), "--format", "jsonl", "list-jobs", f"--item={item}", *words)
    assert result.exit_code in DOCUMENTED, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert [job.item for job in queue.list_jobs(limit=100)] == HOSTILE
    if result.exit_code == 0 and not options:
        listed = [json.loads(line)["item"] for line in result.stdout.splitlines()]
        assert listed == [one for one in HOSTILE if ascii_lower(item) in ascii_lower(one)]
