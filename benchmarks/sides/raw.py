"""What the raw sides do alike: each brings how it connects, adds items, and takes turns of settling and claiming."""

from collections.abc import Callable
from typing import Any, Protocol

import common
from common import BATCH, Handler, Work, items, race, repeat, this, until_empty, workload


class Turns(Protocol):
    """Acknowledges the previous jobs and claims the next in one transaction."""

    held: list[Any]

    def take(self, batch: int | None = None) -> int: ...


class Raw:
    """The workloads of ``script``; ``tidy`` is for a table just filled, ``at_once`` are the rows of one call then."""

    def __init__(
        self,
        script: str,
        connect: Callable[[Work], Any],
        add: Callable[[Any, list[str]], None],
        turns: Callable[..., Turns],
        *,
        tidy: Callable[[Any], object] = lambda _db: None,
        at_once: int = 100 * BATCH,
    ) -> None:
        self._script, self._connect, self._add, self._turns = script, connect, add, turns
        self._tidy, self._at_once = tidy, at_once
        for method in (
            self.enqueue_many, self.exchange, self.consume, self.consume_child, self.fill, self.grown, self.churn,
        ):  # fmt: skip
            workload(method)

    def enqueue_many(self, work: Work) -> dict:
        db = self._connect(work)
        return repeat(work, lambda n: self._add(db, items(BATCH, n * BATCH)), BATCH)

    def exchange(self, work: Work) -> dict:
        db = self._connect(work)
        self._add(db, items(work.jobs))
        return until_empty(work, self._turns(db, work.batch).take)

    def consume(self, work: Work) -> dict:
        self._add(self._connect(work), items(work.jobs))
        return race(work, this(self._script, "consume_child", work))

    def consume_child(self, work: Work) -> dict:
        db = self._connect(work)
        handler = Handler()
        handler.wait()
        turns = self._turns(db, work.batch, handler.name)
        while turns.take():
            for _ in turns.held:
                handler.noop()
        return {}

    def fill(self, work: Work) -> dict:
        """Put rows there for ``grown``."""
        db = self._connect(work)
        for start in range(0, work.rows, self._at_once):
            self._add(db, items(min(self._at_once, work.rows - start), start))
        if work.state == "finished":
            turns = self._turns(db, self._at_once // 10)
            while turns.take():
                pass
        self._tidy(db)
        return {}

    def grown(self, work: Work) -> dict:
        db = self._connect(work)
        return common.grown(work, lambda texts: self._add(db, texts), self._turns(db, work.batch).take)

    def churn(self, work: Work) -> dict:
        db = self._connect(work)
        return common.churn(work, lambda texts: self._add(db, texts), self._turns(db, work.batch).take)
