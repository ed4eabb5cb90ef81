"""Screen: the whole terminal as lines: title, counts, the pane, a message, hints; and the dialog over it."""

from datetime import datetime

from persistq.settings import mask_url

from . import registry
from .session import Session
from .widgets import Line, compact, ends, fit, join, tail, wrap

LEAST_COLUMNS, LEAST_ROWS = 60, 12
_CHROME = 3
"""Rows of title, counts and message."""

_MESSAGE_ROWS = 3

_HINTS = {
    "question": "y does it · any other key does not",
    "prompt": "Enter does it · Tab completes · Esc leaves",
    "busy": "Esc stops",
}


def lines(s: Session, columns: int, rows: int, now: datetime) -> list[Line]:
    """Return everything but the last row, which is the hints', and the prompt's while there is one."""
    if columns < LEAST_COLUMNS or rows < LEAST_ROWS:
        return [
            join([("class:warn", f"{columns}x{rows} is too small, {LEAST_COLUMNS}x{LEAST_ROWS} is needed")], columns)
        ]
    height = rows - _CHROME - 1 - (s.prompt is not None)
    try:
        body = s.pane.draw(columns, height, now)
    except Exception as error:  # noqa: BLE001 - the other screens still work
        body = [
            join(
                [("class:bad", fit(f" this screen cannot be drawn: {type(error).__name__}: {error}", columns))], columns
            )
        ]
    body += [[] for _ in range(height - len(body))]
    said = _message(s, columns)
    # A long message lies over the last rows: what is above it does not move.
    return [_title(s, columns, now), _counts(s, columns), *body[: height + 1 - len(said)], *said]


def hints(s: Session, columns: int) -> Line:
    """Return the last row: what can be pressed now."""
    mode = "prompt" if s.prompt else s.mode
    if mode in _HINTS:
        return join([("class:dim", f" {_HINTS[mode]}")], columns)
    found = [one for one in registry.available(read_only=s.read_only) if one.hint and one.keys]
    here = [one for one in found if s.current in one.on]
    always = [one for one in found if not one.on and one.keys[0] in ("?", "q")]
    others = [one for one in found if not one.on and one not in always and one.hint != s.current]
    parts: list[tuple[str, str]] = []
    left = columns
    for one in [*always, *here, *others]:
        text = (registry.shown_key(one.keys[0]), f" {one.hint}  ")
        size = len(text[0]) + len(text[1]) + (not parts)
        if size > left:
            break
        parts += [("class:key", ("" if parts else " ") + text[0]), ("class:dim", text[1])]
        left -= size
    return join(parts, columns)


def dialog(s: Session, columns: int, rows: int) -> list[Line]:
    """Return the lines of the question or of what is being done; none when there is neither."""
    width, height = max(10, min(columns - 6, 76)), max(1, rows - 6)
    if s.busy:
        busy = s.busy
        far = f"{busy.place:,} of {busy.total:,}" if busy.total else "…"
        state = "stopping after this step" if busy.stop.is_set() else "Esc stops" if busy.total else ""
        return [join([("class:name", fit(f" {busy.doing}: {far}  {state}", width))], width)]
    if s.question:
        text = [("class:name", part) for part in wrap(s.question.title, width - 2)]
        text += [("", fit(part, width - 2)) for part in s.question.lines]
        answer = "type the number below; Esc does nothing" if s.prompt else "y does it, any other key does not"
        room = max(1, height - 1)
        return [join([(style, f" {part}")], width) for style, part in [*text[:room], ("class:key", answer)]]
    return []


def _title(s: Session, columns: int, now: datetime) -> Line:
    badges = [("class:badge", f" {word} ") for word in _badges(s, now)]
    right = [*badges, ("class:title", f" {now:%H:%M:%S} UTC ")]
    left = f" persistq  {s.pane.title} · "
    room = max(0, columns - sum(len(text) for _, text in [("", left), *right]))
    where = tail(mask_url(s.q.dbname), room)
    return ends([("class:title", f"{left}{where}" + " " * columns)], right, columns)


def _badges(s: Session, now: datetime) -> list[str]:
    words = []
    if s.trouble:
        since = f" {(now - s.last.at).total_seconds():.0f} s" if s.last else ""
        words.append(f"STALE{since}")
    if s.frozen:
        words.append("FROZEN")
    elif s.pane.held and s.mode == "normal" and not s.trouble:
        words.append("HELD")
    if s.read_only:
        words.append("READ-ONLY")
    return words


def _counts(s: Session, columns: int) -> Line:
    if s.last is None:
        return join([("class:dim", " …")], columns)
    right = [("", f"{s.last.alive:,} alive ")]
    counts = s.last.counts.items()
    parts = [(f"class:{status}", f" {status} {compact(number)} ") for status, number in counts]
    if sum(len(text) for _, text in [*parts, *right]) > columns:
        parts = [(f"class:{status}", f" {status[:4]} {compact(number)}") for status, number in counts]
    return ends(parts, right, columns)


def _message(s: Session, columns: int) -> list[Line]:
    style, text = s.message
    if not text and s.trouble:
        left = max(0.0, s.trouble.again_at - s.q.clock.monotonic())
        style, text = "class:bad", f"{s.trouble.why} Trying again in {left:.0f} s."
    return [join([(style, f" {part}")], columns) for part in wrap(text, columns - 2)[:_MESSAGE_ROWS]]
