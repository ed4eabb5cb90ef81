"""Shell completion of ids and names. It never makes a database, never waits for one, and never complains."""

from collections.abc import Callable, Iterable
from typing import Any

import typer

import persistq

NEWEST = 50
Found = list[tuple[str, str]]


def _quietly(find: Callable[[Any], Iterable[tuple[str, str]]]) -> Callable[[typer.Context, str], Found]:
    def complete(context: typer.Context, incomplete: str) -> Found:
        try:
            from .output import hide_items

            asked = context.find_root().params
            hide_items(bool(asked.get("no_items")))
            q = persistq.connect(asked.get("db"), read_only=True, queue_busy_seconds=0.2)
            if not q.database.exists():
                return []
            return [(word, text) for word, text in find(q) if word.startswith(incomplete)]
        except Exception:  # noqa: BLE001 - a shell shows whatever goes wrong amid the line that is being typed
            return []

    return complete


@_quietly
def jobs(q: Any) -> Iterable[tuple[str, str]]:
    """Complete the newest jobs' ids."""
    from .output import item_of

    return [(str(job.id), f"{job.status} {item_of(job)}") for job in q.list_jobs(limit=NEWEST, newest=True)]


@_quietly
def queues(q: Any) -> Iterable[tuple[str, str]]:
    """Complete queues."""
    return [(info.name, f"{info.counts['pending']} pending") for info in q.queues()]


@_quietly
def consumers(q: Any) -> Iterable[tuple[str, str]]:
    """Complete consumers' names and ids."""
    infos = q.consumers()
    return [(info.name, "") for info in infos] + [(info.id, "") for info in infos]


@_quietly
def tasks(q: Any) -> Iterable[tuple[str, str]]:
    """Complete the tasks of the live consumers and of the last hour."""
    names = {task for info in q.consumers() for task in info.tasks or ()} | {
        one.task for one in q.timings() if one.task
    }
    return [(name, "") for name in sorted(names)]


def statuses(incomplete: str) -> list[str]:
    """Complete status words."""
    return [word for word in (*persistq.JobStatus, "crashed") if word.startswith(incomplete)]
