"""Audit: what was decided, by whom; and one decision with everything that was written down."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from persistq import spans
from persistq.actions import AuditEntry

from ..pane import TablePane, TextPane
from ..poller import Queue, Seen
from ..table import Column, Row
from ..widgets import Line, join
from .job import labelled

PAGE = 200


@dataclass(frozen=True)
class AuditLook:
    """A page of decisions."""

    before: int | None = None

    def read(self, q: Queue) -> list[AuditEntry]:
        """Return the page, newest first, and one entry more if there is another page."""
        return q.audit(limit=PAGE + 1, before=self.before)


@dataclass(frozen=True)
class EntryLook:
    """One decision."""

    number: int | None

    def read(self, q: Queue) -> AuditEntry | None:
        """Return it, or None when there is none of that number."""
        found = [] if self.number is None else q.audit(limit=1, before=self.number + 1)
        return found[0] if found and found[0].id == self.number else None


def _ago(when: datetime, now: datetime) -> str:
    return spans.ago(when, now)


class AuditPane(TablePane):
    """The decisions, newest first."""

    name, title, key = "audit", "Audit", "9"
    opens = "entry"
    columns = (
        Column("number", 7, right=True),
        Column("ago", 7, right=True, show=_ago),
        Column("action", 16),
        Column("actor", 18, elastic=True),
        Column("changed", 8, right=True),
        Column("refused", 8, right=True, yields=5),
        Column("state", 8, yields=4, style=lambda state: "class:warn" if state == "cut off?" else ""),
        Column("reason", 16, elastic=True, yields=3),
        Column("scope", 24, elastic=True, yields=2),
    )

    def __init__(self) -> None:
        super().__init__()
        self._edges: list[int] = []
        self.more = False

    def look(self) -> AuditLook:
        """Return what the poller is to look at."""
        return AuditLook(self._edges[-1] if self._edges else None)

    def take(self, seen: Seen) -> None:
        """Take a page."""
        self.more = len(seen.data) > PAGE
        super().take(seen)

    def leaf(self, *, forward: bool) -> bool:
        """Turn a page; return whether there was one."""
        if forward and self.more and self.seen is not None:
            self._edges.append(self.seen.data[PAGE - 1].id)
        elif not forward and self._edges:
            self._edges.pop()
        else:
            return False
        self.seen = None
        self.table.replace([])
        return True

    def rows(self, data: Any) -> list[Row]:
        """Return a row for each decision."""
        return [
            Row(
                one.id,
                (
                    one.id, one.at, one.action, f"{one.via}:{one.actor}", one.counts.get("changed"),
                    one.counts.get("refused"), "" if one.finished_at else "cut off?", one.reason,
                    json.dumps(one.scope, ensure_ascii=False),
                ),
                one,
            )
            for one in data[:PAGE]
        ]  # fmt: skip

    def heading(self) -> str:
        """Return where among the decisions one is."""
        page = f"page {len(self._edges) + 1}{', more behind n' if self.more else ''}"
        return "  ".join(filter(None, [page, super().heading()]))

    def empty(self) -> str:
        """Return what is said instead of rows."""
        return "nothing matches" if self.needle else "nothing was decided yet"


class EntryPane(TextPane):
    """One decision."""

    name, title, key = "entry", "Decision", ""

    def __init__(self) -> None:
        super().__init__()
        self.number: int | None = None

    def look(self) -> EntryLook:
        """Return what the poller is to look at."""
        return EntryLook(self.number)

    def show(self, number: int) -> None:
        """Show another decision."""
        if number != self.number:
            self.number, self.seen = number, None
            self.to(0)

    def build(self, seen: Seen, width: int, now: datetime) -> list[Line]:  # noqa: ARG002
        """Return every line."""
        entry: AuditEntry | None = seen.data
        if entry is None:
            return [join([("class:warn", f" the audit log has no entry {self.number}")], width)]
        lines = [join([("class:name", f" Decision {entry.id}")], width), []]
        for name, value in entry.to_dict().items():
            if value is not None:
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                lines += labelled(name, text, width)
        if entry.finished_at is None:
            text = f" It goes on, or was cut off: R, or :audit resume {entry.id}, does the rest"
            lines += [[], join([("class:warn", text)], width)]
        return lines
