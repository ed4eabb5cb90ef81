"""Shards: the tubes, what waits in each, and who holds it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from persistq import beyond, spans

from ..pane import TablePane
from ..poller import Queue
from ..table import Column, Row


@dataclass(frozen=True)
class ShardsLook:
    """The tubes and the leases on them."""

    def read(self, q: Queue) -> list[beyond.Shard]:
        """Return them."""
        return beyond.shards(q)


def _ago(when: datetime, now: datetime) -> str:
    return spans.ago(when, now)


def _left(until: datetime, now: datetime) -> str:
    left = (until - now).total_seconds()
    return f"{left:.0f} s" if left > 0 else "over"


class ShardsPane(TablePane):
    """The tubes."""

    name, title, key = "shards", "Shards", "7"
    columns = (
        Column("tube", 20, elastic=True),
        Column("ready", 8, right=True),
        Column("later", 8, right=True, yields=4),
        Column("waits", 7, right=True, yields=3, show=_ago),
        Column("tries", 5, right=True, yields=5),
        Column("lease", 7, right=True, show=_left),
        Column("owner", 20, elastic=True, yields=2),
    )

    def look(self) -> ShardsLook:
        """Return what the poller is to look at."""
        return ShardsLook()

    def rows(self, data: Any) -> list[Row]:
        """Return a row for each tube that holds requests or is held."""
        return [_row(shard) for shard in data]


def _row(shard: beyond.Shard) -> Row:
    owner = shard.owner or ("(rests after an error)" if shard.state == "resting" else None)
    tries = shard.tries if shard.lease_until else None
    cells = (shard.tube, shard.ready, shard.later, shard.waiting_at, tries, shard.lease_until, owner)
    return Row(shard.tube, cells, shard.tube)
