"""Help: every key and every command, from the registry that carries them out."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from ..pane import TextPane
from ..poller import Queue, Seen
from ..registry import Command
from ..widgets import Line, fit, join, wrap

_KEYS = 16
_NAME = 20


@dataclass(frozen=True)
class HelpLook:
    """Nothing."""

    def read(self, _q: Queue) -> None:
        """Return nothing."""


class HelpPane(TextPane):
    """Every key and every command."""

    name, title, key = "help", "Help", "?"

    def __init__(self) -> None:
        super().__init__()
        #: Gives the commands that this window has; set by the manager, which knows them.
        self.commands: Callable[[], list[Command]] = list

    def look(self) -> HelpLook:
        """Return what the poller is to look at: nothing."""
        return HelpLook()

    def draw(self, width: int, height: int, now: datetime) -> list[Line]:
        """Return the lines that can be seen; help needs no database."""
        if self.seen is None:
            self.seen = Seen(HelpLook(), None, {}, 0, now)
        return super().draw(width, height, now)

    def build(self, seen: Seen, width: int, now: datetime) -> list[Line]:  # noqa: ARG002
        """Return every line."""
        lines = [
            join([("class:name", " Keys, and the words that : takes; capital letters write and ask first")], width)
        ]
        for command in self.commands():
            where = f" ({', '.join(sorted(command.on))})" if command.on else ""
            head = f" {fit(command.shown_keys, _KEYS)}{fit(command.name, _NAME)}"
            for number, part in enumerate(wrap(command.help + where, max(10, width - len(head) - 1))):
                lines.append(join([("class:key", " " * len(head) if number else head), ("", part)], width))
        lines += [[], join([("class:name", " The filter line")], width)]
        text = (
            'state:failed queue:mail task:send consumer:worker error:"timed out" since:24h until:1h report.csv - '
            "a word without a field is a part of the item. Elsewhere than among jobs: a part of what a row shows."
        )
        return lines + [join([("", f" {part}")], width) for part in wrap(text, width - 2)]
