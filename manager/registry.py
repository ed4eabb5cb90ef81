"""Commands: what each is called, its key, what it says of itself. Keys, hints, help and ``:`` are fed from here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from persistq import ConfigError, JobFilter

from . import filters

if TYPE_CHECKING:
    from .session import Session

FLAGS = frozenset({"all", "force", "newest"})
"""Options that take no value."""

FILTERS = ("status", "state", "queue", "task", "consumer", "item", "error", "since", "until")
"""The options that say which jobs, as the command line has them."""

_SHOWN = {"enter": "Enter", "escape": "Esc", "space": "Space", "tab": "Tab", "s-tab": "Shift-Tab", "up": "Up",
          "down": "Down", "pageup": "PgUp", "pagedown": "PgDn", "home": "Home", "end": "End", " ": "Space"}  # fmt: skip


@dataclass(frozen=True)
class Given:
    """What was typed behind a command's name."""

    words: Sequence[str] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    statuses: Sequence[str] = ()

    def has(self, flag: str) -> bool:
        """Return whether an option that takes no value was given."""
        return flag in self.options


@dataclass(frozen=True)
class Command:
    """One thing that a person can do here."""

    #: As the command line has it, where it has it.
    name: str
    help: str
    run: Callable[["Session", Given], None]
    keys: tuple[str, ...] = ()
    #: The screens where the keys count; empty means all.
    on: frozenset[str] = frozenset()
    #: Whether it changes the queue; such a command asks first, and a read-only window has it not.
    writes: bool = False
    #: What it takes behind its name, for the eye, and how many words at least and at most.
    takes: str = ""
    least: int = 0
    most: int = 0
    options: tuple[str, ...] = ()
    #: What the line at the bottom calls it; empty keeps it out.
    hint: str = ""
    #: Whether ``:`` knows it.
    typed: bool = True

    @property
    def shown_keys(self) -> str:
        """Return its keys as a person reads them."""
        return " ".join(shown_key(key) for key in self.keys) or ":"


COMMANDS: list[Command] = []
"""Every command, in the order of the help."""


def command(
    name: str, about: str, *keys: str, on: Sequence[str] = (), words: tuple[int, int] = (0, 0), **more: object
) -> Callable[[Callable[["Session", Given], None]], Callable[["Session", Given], None]]:  # fmt: skip
    """Register the function as a command."""

    def register(run: Callable[["Session", Given], None]) -> Callable[["Session", Given], None]:
        COMMANDS.append(
            Command(name, about, run, keys, frozenset(on), least=words[0], most=words[1], **more)  # type: ignore[arg-type]
        )
        return run

    return register


def available(*, read_only: bool) -> list[Command]:
    """Return the commands that a window has."""
    return [one for one in COMMANDS if not (read_only and one.writes)]


def for_key(key: str, screen: str) -> Command | None:
    """Return the command that a key means on a screen; what the screen has for itself comes first."""
    found = [one for one in COMMANDS if key in one.keys and (not one.on or screen in one.on)]
    return max(found, key=lambda one: bool(one.on), default=None)


def parse(text: str) -> tuple[Command, Given]:
    """Return the command that a typed line means, and what it was given.

    Raises:
        ConfigError: there is no such command, or it takes nothing like this.
    """
    words = filters.split(text)
    names = {one.name: one for one in COMMANDS if one.typed}
    for length in (2, 1):
        found = names.get(" ".join(words[:length]))
        if found and len(words) >= length:
            return found, _given(found, words[length:])
    raise ConfigError(f"there is no command {text!r:.40}; ? lists them")


def _given(what: Command, rest: Sequence[str]) -> Given:
    words: list[str] = []
    statuses: list[str] = []
    options: dict[str, str] = {}
    left = list(rest)
    while left:
        word = left.pop(0)
        if not word.startswith("--") or word == "--":
            words += [word] if word != "--" else []
            continue
        name, mark, value = word[2:].partition("=")
        if name not in what.options:
            known = ", ".join(f"--{one}" for one in what.options) or "none"
            raise ConfigError(f"{what.name} takes no --{name:.40}; its options: {known}")
        if not mark and name not in FLAGS:
            if not left:
                raise ConfigError(f"--{name} needs a value")
            value = left.pop(0)
        if name in ("status", "state"):
            statuses.append(value)
        else:
            options[name] = value
    if not what.least <= len(words) <= what.most:
        raise ConfigError(f"it is: {what.name} {what.takes}".rstrip())
    return Given(words, options, statuses)


def shown_key(key: str) -> str:
    """Return a key as a person reads it."""
    if key.startswith("c-"):
        return f"Ctrl-{key[2:].upper()}"
    return _SHOWN.get(key, key)


def chosen(given: Given) -> JobFilter:
    """Return the filter of typed options."""
    fields = {name: value for name, value in given.options.items() if name in filters.FIELDS}
    return filters.made(given.statuses, fields)


def number(text: str) -> int:
    """Return a typed id.

    Raises:
        ConfigError: it is no number.
    """
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"an id is a number, not {text!r:.40}")
    return int(text)
