"""Session: which screen is shown, what was seen, what is being asked; knows nothing of drawing or of keys."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prompt_toolkit.completion import Completer

import persistq

from . import registry
from .hand import Hand
from .pane import Pane
from .poller import Poller, Queue, Seen, Trouble
from .registry import Command, Given
from .views import PANES
from .views.audit import AuditPane
from .views.help import HelpPane
from .views.jobs import JobsPane, Place

T = TypeVar("T")

_log = logging.getLogger("persistq.manager")


@dataclass(frozen=True)
class Question:
    """Something that is done only when a person says yes."""

    title: str
    lines: tuple[str, ...]
    yes: Callable[[], None]


@dataclass
class Prompt:
    """A line that a person types. ``accept`` may raise what is wrong with it; then it can be corrected."""

    label: str
    accept: Callable[[str], None]
    text: str = ""
    completer: Completer | None = None
    #: Lines typed before under the same name come back with the arrow keys.
    kind: str = ""
    #: What leaving it with Esc does.
    leave: Callable[[], None] = lambda: None


@dataclass
class Busy:
    """Something that is being done, and how far it has come."""

    doing: str
    place: int = 0
    total: int = 0
    stop: threading.Event = field(default_factory=threading.Event)


class Session:
    """One person at one terminal."""

    def __init__(self, q: Queue, *, interval: float, hides_items: bool = False) -> None:
        self.q = q
        self.hides_items = hides_items
        self.read_only = q.read_only
        self.panes: dict[str, Pane] = {pane.name: pane for pane in (make() for make in PANES)}
        for pane in self.panes.values():
            pane.hides_items = hides_items
        help_pane = self.panes["help"]
        assert isinstance(help_pane, HelpPane)  # noqa: S101 - for the type checker
        help_pane.commands = lambda: registry.available(read_only=self.read_only)
        self.current = "overview"
        self._trail: list[tuple[str, Place]] = []
        #: (style, text) for the message line.
        self.message = ("", "")
        self.last: Seen | None = None
        self.trouble: Trouble | None = None
        self.question: Question | None = None
        self.prompt: Prompt | None = None
        self.busy: Busy | None = None
        #: Hands a function to the event loop, from any thread; set by whoever runs the loop.
        self.post: Callable[[Callable[[], None]], None] = lambda act: act()
        #: Ends the program with an exit code; sends a text to the terminal's clipboard; set likewise, as is the next.
        self.leave: Callable[[int], None] = lambda _code: None
        self.copy: Callable[[str], None] = lambda _text: None
        #: Completes what is typed anew, for more is known to complete it with.
        self.complete: Callable[[], None] = lambda: None
        self.poller = Poller(q, self.pane.look(), lambda found: self.post(lambda: self._take(found)), interval)
        self.hand = Hand()

    # What is shown

    @property
    def pane(self) -> Pane:
        """The screen that is shown."""
        return self.panes[self.current]

    @property
    def jobs(self) -> JobsPane:
        """The screen of jobs."""
        found = self.panes["jobs"]
        assert isinstance(found, JobsPane)  # noqa: S101 - for the type checker
        return found

    @property
    def frozen(self) -> bool:
        """Whether a person wants nothing to move."""
        return self.poller.frozen

    @property
    def mode(self) -> str:
        """What keys mean now: ``busy``, ``prompt``, ``question`` or ``normal``."""
        if self.busy:
            return "busy"
        if self.prompt:
            return "prompt"
        return "question" if self.question else "normal"

    @property
    def holding(self) -> bool:
        """Whether no row may move now."""
        return self.frozen or self.mode != "normal" or (self.pane is self.jobs and self.jobs.marked)

    def show(self, name: str, *, deeper: bool = False) -> None:
        """Show another screen; ``deeper`` lets Esc lead back to this one."""
        if deeper:
            place = self.jobs.place
            place.cursor = self.jobs.table.current.key if self.jobs.table.current else None
            self._trail.append((self.current, place))
        else:
            self._trail.clear()
        self.current = name
        self.look()

    def back(self) -> bool:
        """Go back to where Enter was pressed; return whether there is such a place."""
        if not self._trail:
            return False
        self.current, place = self._trail.pop()
        if self.jobs.place is not place:
            self.jobs.go(place)
        self.look()
        return True

    def look(self) -> None:
        """Let the poller look at what the screen wants to see now."""
        self.poller.want(self.pane.look())

    def say(self, text: object, style: str = "") -> None:
        """Write something on the message line, until the next key."""
        self.message = (style, " ".join(str(text).split()))

    def complain(self, error: object) -> None:
        """Write what went wrong on the message line."""
        text = str(error) if isinstance(error, persistq.PersistQError | str) else f"{type(error).__name__}: {error}"
        self.say(text, "class:bad")

    def _take(self, found: Seen | Trouble) -> None:
        if isinstance(found, Trouble):
            self.trouble = found
            return
        self.last, self.trouble = found, None
        if found.look == self.pane.look():
            self.settle()
            self.pane.take(found)

    def settle(self) -> None:
        """Let rows move again if nothing holds them any more, or hold them."""
        self.pane.hold(self.holding)

    # What is done

    def press(self, key: str) -> None:
        """Do what a key means on this screen."""
        self.message = ("", "")
        found = registry.for_key(key, self.current)
        if found is not None:
            try:
                self.run(found, Given())
            except persistq.PersistQError as error:
                self.complain(error)

    def obey(self, text: str) -> None:
        """Do what a typed line means.

        Raises:
            PersistQError: it means nothing, or cannot be done.
        """
        if text.strip():
            self.run(*registry.parse(text))

    def run(self, what: Command, given: Given) -> None:
        """Carry a command out.

        Raises:
            PersistQError: it cannot be done.
        """
        if what.writes and self.read_only:
            raise persistq.ReadOnly(f"{what.name} is refused")
        what.run(self, given)

    def ask(self, question: Question, *, count: int | None = None) -> None:
        """Ask before something is done; with ``count``, the number has to be typed."""
        self.question = question
        if count is not None:
            self.prompt = Prompt(
                f"type {count} to go ahead: ", lambda text: self._typed(text, count), leave=self.refuse
            )

    def _typed(self, text: str, count: int) -> None:
        if text.strip().replace(",", "") == str(count):
            self.agree()
        else:
            self.refuse()

    def agree(self) -> None:
        """The answer is yes."""
        question, self.question = self.question, None
        if question:
            question.yes()

    def refuse(self) -> None:
        """The answer is anything else."""
        self.question = None
        self.say("nothing was done")

    def answer(self, text: str) -> None:
        """Take the line that was typed at the prompt."""
        prompt, self.prompt = self.prompt, None
        if prompt is None:
            return
        self.message = ("", "")
        try:
            prompt.accept(text)
        except persistq.PersistQError as error:
            self.complain(error)
            prompt.text = text
            self.prompt = prompt

    def abandon(self) -> None:
        """Leave the prompt with nothing done."""
        prompt, self.prompt = self.prompt, None
        self.message = ("", "")
        if prompt:
            prompt.leave()

    def do(self, doing: str, work: Callable[[Busy], T], then: Callable[[T], None]) -> None:
        """Perform work in the hand's thread while the screen says what is being done; then go on here."""
        busy = self.busy = Busy(doing)

        def perform() -> None:
            try:
                result = work(busy)
            except Exception as error:  # noqa: BLE001 - it is told, and the screen stays alive
                self.post(lambda error=error: self._done(busy, lambda: self.complain(error)))  # type: ignore[misc]
            else:
                self.post(lambda: self._done(busy, lambda: then(result)))

        self.hand.do(perform)

    def _done(self, busy: Busy, act: Callable[[], None]) -> None:
        if self.busy is busy:
            self.busy = None
        act()
        self.poller.wake()

    def find(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Read something that nobody waits for, such as what a prompt could be completed with."""

        def perform() -> None:
            try:
                found = work()
            except Exception:  # noqa: BLE001 - then there is nothing to complete
                _log.debug("nothing found", exc_info=True)
            else:
                self.post(lambda: then(found))

        threading.Thread(target=perform, name="persistq-tui-finder", daemon=True).start()

    def pages(self) -> JobsPane | AuditPane | None:
        """Return the screen if it has pages."""
        pane = self.pane
        return pane if isinstance(pane, JobsPane | AuditPane) else None
