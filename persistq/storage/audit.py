"""The audit table: what was decided, by whom, from where. Lines are added and never changed."""

import socket
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from .. import codec
from ..actions import VIAS, AuditEntry
from ..errors import JobNotFound
from .now import Now
from .schema import audit

_MAX_BYTES = 4 << 20
_DONE, _BEGUN, APPLIED, FINISHED = "done", "begun", "applied", "finished"


def record(
    connection: Connection,
    now: Now,
    actor: str,
    action: str,
    scope: dict[str, Any],
    counts: dict[str, Any],
    *,
    reason: str | None = None,
    begins: bool = False,
) -> int:
    """Write down a decision and return its number.

    It is carried out in this very transaction, or ``begins`` here and takes several.
    """
    step = _BEGUN if begins else _DONE
    return _add(connection, now, actor, step, action=action, scope=scope, counts=counts, reason=reason)


def go_on(
    connection: Connection, now: Now, actor: str, operation: int, action: str, counts: dict[str, Any], *, over: bool
) -> None:
    """Write down, in the transaction that does it, how far a decision is carried out."""
    step = FINISHED if over else APPLIED
    _add(connection, now, actor, step, action=action, scope={}, counts=counts, operation=operation)


def find(
    connection: Connection,
    *,
    limit: int,
    before: int | None = None,
    actor: str | None = None,
    action: str | None = None,
    since: datetime | None = None,
) -> list[AuditEntry]:
    """Return decisions, newest first, those below the number ``before``."""
    query = select(audit).where(audit.c.operation.is_(None)).order_by(audit.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(audit.c.id < before)
    if actor is not None:
        query = query.where(audit.c.actor.icontains(codec.check_text("a filter", actor, 255), autoescape=True))
    if action is not None:
        query = query.where(audit.c.action == codec.check_text("a filter", action, 32))
    if since is not None:
        query = query.where(audit.c.at >= since)
    heads = connection.execute(query).all()
    last = _last(connection, [row.id for row in heads if row.step == _BEGUN])
    return [_entry(row, last.get(row.id)) for row in heads]


def head_and_last(connection: Connection, operation: int) -> tuple[AuditEntry, dict[str, Any]]:
    """Return a decision and the counts of its last line.

    Raises:
        JobNotFound: there is no bulk action of that number.
    """
    head = connection.execute(
        select(audit).where(audit.c.id == operation, audit.c.step == _BEGUN)
    ).first()  # fmt: skip
    if head is None:
        raise JobNotFound(f"the audit log has no bulk action {operation}; 'persistq audit list' shows them")
    last = _last(connection, [operation]).get(operation)
    return _entry(head, last), codec.loads((last or head).counts)


def _add(
    connection: Connection,
    now: Now,
    actor: str,
    step: str,
    *,
    action: str,
    scope: dict[str, Any],
    counts: dict[str, Any],
    reason: str | None = None,
    operation: int | None = None,
) -> int:
    via, mark, who = actor.partition(":")
    if not mark or via not in VIAS:
        via, who = (actor if actor in VIAS else "library"), actor
    row = {
        "operation": operation,
        "at": now.value,
        "step": step,
        "via": via,
        "actor": codec.storable(who, 255),
        "host": codec.storable(socket.gethostname(), 255),
        "action": action,
        "reason": reason and codec.storable(reason),
        "scope": codec.dumps(scope, max_bytes=_MAX_BYTES),
        "counts": codec.dumps(counts, max_bytes=_MAX_BYTES),
    }
    key = connection.execute(insert(audit).values(row)).inserted_primary_key
    return int(key[0]) if key else 0


def _last(connection: Connection, operations: Sequence[int]) -> dict[int, Row[Any]]:
    newest = (
        select(func.max(audit.c.id)).where(audit.c.operation.in_(operations)).group_by(audit.c.operation)
    )  # fmt: skip
    ids = list(connection.execute(newest).scalars()) if operations else []
    return {row.operation: row for row in connection.execute(select(audit).where(audit.c.id.in_(ids)))}


def _entry(head: Row[Any], last: Row[Any] | None) -> AuditEntry:
    counts = codec.loads(head.counts)
    if last is not None:
        counts |= {name: value for name, value in codec.loads(last.counts).items() if name in ("changed", "refused")}
    finished_at = head.at if head.step == _DONE else last.at if last is not None and last.step == FINISHED else None
    return AuditEntry(
        id=head.id,
        at=head.at,
        actor=head.actor,
        via=head.via,
        host=head.host,
        action=head.action,
        reason=head.reason,
        scope=codec.loads(head.scope),
        counts=counts,
        finished_at=finished_at,
    )
