"""The limit: a list, a row of a thousand items in a SQLite file, a rename; nothing recovered, checked or owned."""

import os
import sqlite3
import sys
import time
from pathlib import Path

import orjson
from common import Work, main, workload
from streams import BLOCK, FILE_ITEMS, Flow, run, texts, until_over


class Writer:
    def __init__(self, work: Work) -> None:
        self._folder, self._sync = work.folder, work.durability == "power"
        self._items: list[str] = []
        self._rows: list[tuple[bytes]] = []

    def add(self, item: str) -> None:
        self._items.append(item)
        if len(self._items) >= BLOCK:
            self._rows.append((orjson.dumps(self._items),))
            self._items.clear()
            if len(self._rows) * BLOCK >= FILE_ITEMS:
                self.roll()

    def roll(self) -> None:
        name = f"{time.time_ns()}_{os.getpid()}.db"
        path = f"{self._folder}/loading_{name}"
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA page_size = 65536")
        db.execute("BEGIN")
        db.execute("CREATE TABLE block (items TEXT)")
        db.executemany("INSERT INTO block VALUES (CAST(? AS TEXT))", self._rows)
        db.execute("COMMIT")
        db.close()
        self._rows.clear()
        if self._sync:
            for place in (path, self._folder):
                handle = os.open(place, os.O_RDONLY)
                os.fsync(handle)
                os.close(handle)
        Path(path).rename(f"{self._folder}/ready_{name}")


def produce(flow: Flow, source: list[str]) -> None:
    writer = Writer(flow.work)
    for _ in range(flow.each // len(source)):
        for one in source:
            writer.add(one)


def consume(flow: Flow, _source: list[str]) -> tuple:
    def some() -> int:
        count = 0
        for name in sorted(path.name for path in Path(flow.work.folder).glob("ready_*")):
            mine = f"{flow.work.folder}/unload_{name}"
            try:
                Path(f"{flow.work.folder}/{name}").rename(mine)
            except FileNotFoundError:
                continue
            db = sqlite3.connect(mine)
            for (text,) in db.execute("SELECT items FROM block ORDER BY rowid"):
                for _item in orjson.loads(text):
                    count += 1
            db.close()
            Path(mine).unlink()
        return count

    return until_over(flow, some)


@workload
def strings(work: Work) -> dict:
    return run(work, lambda _flow: texts(), produce, consume)


if __name__ == "__main__":
    sys.exit(main())
