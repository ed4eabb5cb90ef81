"""Completion of the lines that are typed: commands, options, and names that were read when the prompt opened."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from persistq.text import safe_text

from . import filters, registry

if TYPE_CHECKING:
    from .session import Session

_NEWEST = 50


@dataclass(frozen=True)
class Names:
    """What there is in the queue to be named."""

    queues: Sequence[str] = ()
    tasks: Sequence[str] = ()
    consumers: Sequence[str] = ()
    jobs: Sequence[str] = ()

    def of(self, field: str) -> Sequence[str]:
        """Return what a field or an option may be."""
        known = {"status": filters.STATUSES, "state": filters.STATUSES, "queue": self.queues, "task": self.tasks,
                 "consumer": self.consumers, "to": self.consumers}  # fmt: skip
        return known.get(field, ())


class _Known(Completer):
    """Completes from names; ``learn`` fills them in."""

    def __init__(self) -> None:
        self.names = Names()

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:  # noqa: ARG002
        """Yield what the word before the cursor could become."""
        before = document.text_before_cursor
        word = before.rpartition(" ")[2]
        for found, meta in self.candidates(before):
            if found.startswith(word) and found != word and found.isprintable():
                yield Completion(found, -len(word), display=safe_text(found), display_meta=safe_text(meta))

    @abstractmethod
    def candidates(self, before: str, /) -> Iterable[tuple[str, str]]:
        """Yield words that may stand there, each with what it means."""


class Consumers(_Known):
    """Completes consumers' names and ids."""

    def candidates(self, _before: str, /) -> Iterable[tuple[str, str]]:
        """Yield the consumers."""
        return ((name, "") for name in self.names.consumers)


class Filters(_Known):
    """Completes the words of a filter."""

    def candidates(self, before: str, /) -> Iterable[tuple[str, str]]:
        """Yield fields, and behind a field its values."""
        field, mark, _ = before.rpartition(" ")[2].partition(":")
        if mark:
            return ((f"{field}:{name}", "") for name in self.names.of(field))
        return ((f"{name}:", "") for name in ("state", *filters.FIELDS[1:]))


class Commands(_Known):
    """Completes commands, their options and what these take."""

    def __init__(self, *, read_only: bool) -> None:
        super().__init__()
        self._commands = [one for one in registry.available(read_only=read_only) if one.typed]

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield whole commands first: they may be of two words."""
        before = document.text_before_cursor.lstrip()
        for one in self._commands:
            if one.name.startswith(before) and one.name != before:
                yield Completion(one.name, -len(before), display_meta=one.help)
        yield from super().get_completions(document, complete_event)

    def candidates(self, before: str, /) -> Iterable[tuple[str, str]]:
        """Yield what may follow the command that was typed."""
        words = before.split()
        names = {one.name: one for one in self._commands}
        found = names.get(" ".join(words[:2])) or names.get(" ".join(words[:1]))
        if found is None or " " not in before:
            return
        typed = words if before.endswith(" ") else words[:-1]
        if typed and typed[-1].startswith("--") and typed[-1][2:] not in registry.FLAGS:
            yield from ((name, "") for name in self.names.of(typed[-1][2:]))
            return
        yield from ((f"--{name}", "") for name in found.options)
        yield from ((name, "") for name in self._things(found.takes))

    def _things(self, takes: str) -> Sequence[str]:
        kinds: dict[str, Callable[[], Sequence[str]]] = {
            "QUEUE": lambda: self.names.queues, "CONSUMER": lambda: self.names.consumers, "ID": lambda: self.names.jobs,
        }  # fmt: skip
        return [name for kind, names in kinds.items() if kind in takes for name in names()]


def learn(s: "Session") -> None:
    """Read the names that the prompt just opened could be completed with; the person types on meanwhile."""
    prompt = s.prompt
    completer = prompt.completer if prompt else None
    if not isinstance(completer, _Known):
        return

    def read() -> Names:
        consumers = s.q.consumers()
        tasks = {task for info in consumers for task in info.tasks or ()} | {
            one.task for one in s.q.timings() if one.task
        }
        return Names(
            queues=[info.name for info in s.q.queues()],
            tasks=sorted(tasks),
            consumers=list(dict.fromkeys([info.name for info in consumers] + [info.id for info in consumers])),
            jobs=[str(job.id) for job in s.q.list_jobs(limit=_NEWEST, newest=True)],
        )

    def know(names: Names) -> None:
        completer.names = names
        if s.prompt is prompt:
            s.complete()

    s.find(read, know)
