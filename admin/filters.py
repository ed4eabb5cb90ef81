"""Filters: the options that say which jobs, the same for every command that takes many."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

import persistq

from . import complete, spans

_OPTIONS: dict[str, Any] = {
    "status": Annotated[
        list[str] | None,
        typer.Option(
            "--status", "--state", metavar="WORD", help="A status, or crashed; repeatable.",
            autocompletion=complete.statuses,
        ),
    ],
    "queue": Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this queue.", autocompletion=complete.queues)
    ],
    "task": Annotated[str | None, typer.Option(metavar="NAME", help="Only this task.", autocompletion=complete.tasks)],
    "consumer": Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Held by or assigned to this consumer.", autocompletion=complete.consumers),
    ],
    "item": Annotated[str | None, typer.Option(metavar="TEXT", help="Part of the item.")],
    "error": Annotated[str | None, typer.Option(metavar="TEXT", help="Part of the error.")],
    "since": Annotated[str | None, typer.Option(metavar="WHEN", help="Created within, as 24h, or since a date.")],
    "until": Annotated[str | None, typer.Option(metavar="WHEN", help="Created before, as 30m ago, or a date.")],
}  # fmt: skip


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the filters as options; it gets them as ``which``, a JobFilter."""

    @functools.wraps(command)
    def run(*args: Any, **given: Any) -> None:
        chosen = {name: given.pop(name) for name in _OPTIONS}
        status = chosen.pop("status") or None
        for name in ("since", "until"):
            chosen[name] = spans.moment(chosen[name]) if chosen[name] else None
        command(*args, **given, which=persistq.JobFilter.of(status, **chosen))

    parameters = list(inspect.signature(command).parameters.values())
    place = [one.name for one in parameters].index("which")
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in _OPTIONS.items()
    ]
    others = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters if one.name != "which"]
    # Typer reads these two to make its options.
    run.__signature__ = inspect.Signature([*others[:place], *options, *others[place:]])  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in run.__signature__.parameters.values()}  # type: ignore[attr-defined]
    return run
