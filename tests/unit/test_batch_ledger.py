"""Ledger mode in a folder and in fsspec's memory: what is announced, opened, repeated and refused."""

import os
import sys

import pytest
from support.batches import drain, fill, names

import persistq
from persistq.batch import BatchReader, Ledger


@pytest.fixture(params=["folder", "file URL", "memory"])
def ledger(request, tmp_path):
    place = {"folder": str(tmp_path / "store"), "file URL": f"file://{tmp_path}/store", "memory": "memory://store/a"}
    made = Ledger(place[request.param])
    yield made
    if request.param == "memory":
        made._store._fs.store.clear()


@pytest.fixture
def announced(tmp_path, ledger):
    """Two announced batches: their URLs."""
    fill(tmp_path / "spool", range(15), max_items=10, block_items=4)
    urls: list[str] = []
    assert ledger.announce(tmp_path / "spool", "q", urls.append) == 2
    assert names(tmp_path / "spool") == []
    return urls


def test_what_is_announced_is_performed_once(ledger, announced):
    got = []
    for url in announced * 2:  # every job is delivered twice
        assert url.startswith(ledger.place + "/q/")
        with ledger.opened(url) as items:
            got += items
    assert got == list(range(15))


def test_a_failed_attempt_leaves_the_batch(ledger, announced):
    with pytest.raises(ZeroDivisionError), ledger.opened(announced[0]) as items:
        assert next(items) == 0
        raise ZeroDivisionError
    with ledger.opened(announced[0]) as items:
        assert list(items) == list(range(10))


def test_an_announcement_that_fails_is_made_again_under_the_same_url(tmp_path, ledger):
    fill(tmp_path / "spool", range(3))
    urls = []

    def fails(url):
        urls.append(url)
        raise persistq.DatabaseUnavailable

    with pytest.raises(persistq.DatabaseUnavailable):
        ledger.announce(tmp_path / "spool", "q", fails)
    assert len(names(tmp_path / "spool", "ready_")) == 1
    assert ledger.announce(tmp_path / "spool", "q", urls.append) == 1
    assert urls[0] == urls[1]
    with ledger.opened(urls[0]) as items:
        assert list(items) == [0, 1, 2]


def test_a_limit_and_a_batch_in_other_hands_are_heeded(tmp_path, ledger):
    fill(tmp_path / "spool", range(3), max_items=1)
    urls = []
    with BatchReader(tmp_path / "spool", "q") as reader:
        assert reader.get() == 0
        assert ledger.announce(tmp_path / "spool", "q", urls.append, limit=1) == 1
        assert ledger.announce(tmp_path / "spool", "q", urls.append) == 1
    assert len(urls) == 2
    assert drain(tmp_path / "spool") == []


def test_what_was_consumed_before_is_not_announced_again(tmp_path, ledger):
    fill(tmp_path / "spool", range(10), block_items=4)
    with BatchReader(tmp_path / "spool", "q") as reader:
        assert [reader.get() for _ in range(6)][-1] == 5
    urls: list[str] = []
    ledger.announce(tmp_path / "spool", "q", urls.append)
    with ledger.opened(urls[0]) as items:
        assert list(items) == [6, 7, 8, 9]


def test_a_damaged_batch_is_put_aside_and_not_announced(tmp_path, ledger):
    fill(tmp_path / "spool", range(3))
    path = tmp_path / "spool" / "q" / names(tmp_path / "spool")[0]
    path.write_bytes(path.read_bytes()[:-100])
    assert ledger.announce(tmp_path / "spool", "q", lambda url: pytest.fail(url)) == 0
    assert len(names(tmp_path / "spool", "invalid_")) == 1


@pytest.mark.parametrize(
    "url", ["{}/../secret", "{}", "{}x/q/a.db", "/etc/passwd", "s3://other/q/a.db", "{}/q/none.db"]
)
def test_a_url_that_is_not_the_ledgers_fails_for_good(ledger, announced, url):
    with pytest.raises(persistq.PermanentError), ledger.opened(url.format(ledger.place)):
        pytest.fail("opened")


def test_a_store_that_cannot_be_reached_is_an_outage(tmp_path, monkeypatch):
    fill(tmp_path / "spool", range(3))
    ledger = Ledger("memory://store/b")
    monkeypatch.setattr(ledger._store._fs, "put_file", lambda *_: (_ for _ in ()).throw(TimeoutError("no answer")))
    with pytest.raises(persistq.DatabaseUnavailable, match="no answer"):
        ledger.announce(tmp_path / "spool", "q", lambda url: pytest.fail(url))
    assert drain(tmp_path / "spool") == [0, 1, 2]


def test_unknown_and_missing_file_systems(monkeypatch):
    with pytest.raises(persistq.ConfigError, match="nosuch"):
        Ledger("nosuch://x")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(persistq.ConfigError, match=r"persistq\[s3\]"):
        Ledger("s3://bucket")


def test_announced_files_are_private(tmp_path):
    old = os.umask(0)
    try:
        fill(tmp_path / "spool", [1])
        urls: list[str] = []
        Ledger(tmp_path / "store").announce(tmp_path / "spool", "q", urls.append)
    finally:
        os.umask(old)
    assert os.stat(urls[0]).st_mode & 0o077 == 0
    assert os.stat(tmp_path / "store").st_mode & 0o077 == 0
