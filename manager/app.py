"""App: prompt_toolkit's application around a session: layout, keys, signals, and leaving the terminal as it was."""

import asyncio
import base64
import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import (
    BufferControl,
    ConditionalContainer,
    Float,
    FloatContainer,
    FormattedTextControl,
    HSplit,
    Layout,
    Window,
)
from prompt_toolkit.layout.menus import CompletionsMenu
from prompt_toolkit.layout.processors import BeforeInput
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.widgets import Frame

from . import commands, screen
from .session import Prompt, Question, Session
from .style import STYLE
from .widgets import Line

_PATIENCE = 2.0
"""Seconds that a look or a step under way has to end when a person leaves."""

_ESCAPE_SECONDS = 0.05
"""After a lone Esc: it might be the beginning of a longer key."""

_NO_KEYS = {Keys.CPRResponse, Keys.Vt100MouseEvent, Keys.WindowsMouseEvent, Keys.ScrollUp, Keys.ScrollDown}


_ANEW = object()
"""Whatever is asked next, even the same again, begins without open completions."""


class App:
    """The screen of one session."""

    def __init__(self, session: Session, *, color: bool = True) -> None:
        self.session = session
        self._histories: dict[str, InMemoryHistory] = {}
        self._asked: Prompt | object | None = None
        #: The question that is on the screen.
        self._shown: Question | None = None
        self._buffer = self._new_buffer(None)
        self._input = Window(BufferControl(self._buffer), height=1)
        self._main = Window(
            FormattedTextControl(self._text, focusable=True, show_cursor=False), always_hide_cursor=True
        )
        self.application: Application[int] = Application(
            layout=Layout(self._layout(), focused_element=self._main),
            key_bindings=self._bindings(),
            style=STYLE,
            full_screen=True,
            color_depth=None if color else ColorDepth.DEPTH_1_BIT,
            refresh_interval=1.0,
        )
        self.application.ttimeoutlen = _ESCAPE_SECONDS
        self.application.before_render += lambda _application: self._forget_what_is_no_answer()

    def run(self) -> int:
        """Run until the person leaves, and return the exit code."""
        with _messages(self.session):
            try:
                return self.application.run(pre_run=self._begin)
            except (EOFError, OSError):
                return 1  # the terminal is gone
            finally:
                self._end()

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()

        def post(act: Callable[[], None]) -> None:
            with suppress(RuntimeError):  # the loop has ended: nobody is left to tell
                loop.call_soon_threadsafe(self._act, act)

        self.session.post = post
        self.session.leave = self._leave
        self.session.copy = self._copy
        self.session.complete = self._complete
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, self._leave, 128 + number)
        self.session.poller.start()
        self.session.hand.start()

    def _end(self) -> None:
        session = self.session
        session.post = lambda _act: None
        if session.busy:
            session.busy.stop.set()
        ended = [session.poller.stop(_PATIENCE), session.hand.stop(_PATIENCE)]
        if all(ended):  # a thread that hangs on a dead server keeps its connection
            session.q.close()

    def _leave(self, code: int) -> None:
        if self.application.is_running and not self.application.is_done:
            self.application.exit(result=code)

    def _copy(self, text: str) -> None:
        code = base64.b64encode(text.encode()).decode()
        self.application.output.write_raw(f"\x1b]52;c;{code}\x07")
        self.application.output.flush()

    def _act(self, act: Callable[[], None]) -> None:
        """Do something in the event loop; whatever goes wrong is told, and the screen stays alive."""
        try:
            act()
        except Exception as error:  # noqa: BLE001
            self.session.complain(error)
        self.session.settle()
        self._sync()
        self.application.invalidate()

    def _complete(self) -> None:
        if self._buffer.text and self._buffer.complete_state is None:
            self._buffer.start_completion()

    # What is drawn

    def _layout(self) -> FloatContainer:
        prompting = Condition(lambda: self.session.prompt is not None)
        shown = Condition(lambda: bool(self._dialog()))
        frame = Frame(
            Window(
                FormattedTextControl(lambda: _joined(self._dialog())), dont_extend_height=True, dont_extend_width=True
            )
        )
        body = HSplit(
            [
                self._main,
                ConditionalContainer(self._input, filter=prompting),
                Window(FormattedTextControl(self._hints), height=1),
            ]
        )
        return FloatContainer(
            body,
            floats=[
                Float(ConditionalContainer(frame, filter=shown)),
                Float(CompletionsMenu(max_height=8), xcursor=True, ycursor=True),
            ],
        )

    def _text(self) -> StyleAndTextTuples:
        size = self.application.output.get_size()
        return _joined(screen.lines(self.session, size.columns, size.rows, self.session.q.clock.now()))

    def _hints(self) -> StyleAndTextTuples:
        return _joined([screen.hints(self.session, self.application.output.get_size().columns)])

    def _dialog(self) -> list[Line]:
        size = self.application.output.get_size()
        if size.columns < screen.LEAST_COLUMNS or size.rows < screen.LEAST_ROWS:
            return []
        return screen.dialog(self.session, size.columns, size.rows)

    def _sync(self) -> None:
        """Give the keyboard to the prompt while there is one."""
        prompt = self.session.prompt
        if prompt is self._asked:
            return
        self._asked = prompt
        if prompt is None:
            self.application.layout.focus(self._main)
            return
        self._buffer = self._new_buffer(prompt)
        label = BeforeInput([("class:key", f" {prompt.label}")])
        self._input.content = BufferControl(self._buffer, input_processors=[label])
        self.application.layout.focus(self._input)

    def _new_buffer(self, prompt: Prompt | None) -> Buffer:
        if prompt is None:
            return Buffer(multiline=False)
        buffer = Buffer(
            multiline=False, completer=prompt.completer, complete_while_typing=prompt.completer is not None,
            history=self._histories.setdefault(prompt.kind, InMemoryHistory()) if prompt.kind else InMemoryHistory(),
        )  # fmt: skip
        buffer.text = prompt.text
        buffer.cursor_position = len(prompt.text)
        return buffer

    # Keys

    def _bindings(self) -> KeyBindings:
        keys = KeyBindings()
        in_mode = {mode: Condition(lambda mode=mode: self.session.mode == mode)  # type: ignore[misc]
                   for mode in ("normal", "prompt", "question", "busy")}  # fmt: skip

        def pressed(key: str) -> Callable[[KeyPressEvent], None]:
            return lambda _event: self._act(lambda: self.session.press(key))

        for key in dict.fromkeys(key for one in commands.COMMANDS for key in one.keys):
            keys.add(*key.split(" "), filter=in_mode["normal"], eager=key == "escape")(pressed(key))

        keys.add(Keys.Any, filter=in_mode["question"], eager=True)(self._answered)
        keys.add("enter", filter=in_mode["prompt"], eager=True)(lambda _event: self._act(self._accept))
        for key in ("escape", "c-c", "c-g"):
            keys.add(key, filter=in_mode["prompt"], eager=True)(lambda _event: self._act(self.session.abandon))
        keys.add(Keys.Any, filter=in_mode["busy"], eager=True)(self._while_busy)
        keys.add("c-z")(lambda event: event.app.suspend_to_background())
        keys.add(Keys.SIGINT)(lambda _event: self._leave(130))
        return keys

    @property
    def _unread(self) -> bool:
        """Whether there is a question that is not on the screen yet, so that no key can be its answer."""
        return self.session.question is not None and self.session.question is not self._shown

    def _forget_what_is_no_answer(self) -> None:
        """Drop the keys that were pressed before the question that is about to be drawn."""
        if self._unread:
            self.application.input.read_keys()
            self.application.input.flush_keys()
            self.application.key_processor.empty_queue()
            self._buffer.reset()
        self._shown = self.session.question

    def _answered(self, event: KeyPressEvent) -> None:
        key = event.key_sequence[0].key
        if key in _NO_KEYS or self._unread:
            return
        self._act(self.session.agree if key in ("y", "Y") else self.session.refuse)

    def _while_busy(self, event: KeyPressEvent) -> None:
        key = event.key_sequence[0].key
        if key == Keys.ControlC:
            self._leave(130)
        elif key == Keys.Escape and self.session.busy:
            self.session.busy.stop.set()

    def _accept(self) -> None:
        if self._unread:
            return
        self._buffer.append_to_history()
        self._asked = _ANEW
        self.session.answer(self._buffer.text)


def _joined(found: list[Line]) -> StyleAndTextTuples:
    text: StyleAndTextTuples = []
    for number, line in enumerate(found):
        text += [("", "\n")] if number else []
        text += line
    return text


@contextmanager
def _messages(session: Session) -> Iterator[None]:
    """Show what is logged or warned of on the message line: printed, it would tear the screen."""
    handler = _Told(session)
    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers = [handler]
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            yield
    finally:
        logging.captureWarnings(False)
        root.handlers = before


class _Told(logging.Handler):
    def __init__(self, session: Session) -> None:
        super().__init__(logging.WARNING)
        self._session = session

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self._session.post(lambda: self._session.say(text, "class:warn"))
