"""Sharded requests: tubes, their requests, and the leases of those who perform them."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import LONGBLOB

revision = "0002"
down_revision = "0001"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.BigInteger
_BYTES = sa.LargeBinary().with_variant(LONGBLOB, "mysql", "mariadb")

_VACUUM_SOON = {
    # Rows come and go all day: by default dead ones may fill a fifth of a table before anyone looks.
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_threshold": "1000",
    "autovacuum_vacuum_cost_delay": "0",
    "autovacuum_analyze_scale_factor": "0.05",
}


def upgrade() -> None:
    """Apply the revision."""
    _create_table(
        "tubes",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("turn", _TIME, nullable=False),
        sa.Column("plain", sa.SmallInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("tubes_turn", "tubes", ["turn"])
    _create_table(
        "requests",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("tube", sa.String(255), nullable=False),
        sa.Column("place", sa.BigInteger, nullable=False),
        sa.Column("due_at", _TIME),
        sa.Column("every", sa.BigInteger),
        sa.Column("digest", sa.String(32)),
        sa.Column("payload", _BYTES, nullable=False),
        sqlite_autoincrement=True,
    )
    partial = op.get_bind().dialect.name in ("sqlite", "postgresql")
    # Where there are no partial indexes, the column of the condition stands where it can be compared.
    for name, columns, instead, where in (
        ("requests_ready", ["tube", "place", "id"], ["tube", "due_at", "place", "id"], "due_at IS NULL"),
        ("requests_due", ["due_at", "id"], ["due_at", "id"], "due_at IS NOT NULL"),
        ("requests_digest", ["digest"], ["digest"], "digest IS NOT NULL"),
    ):
        condition = sa.text(where)
        op.create_index(
            name, "requests", columns if partial else instead, sqlite_where=condition, postgresql_where=condition
        )
    _create_table(
        "leases",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("tube", sa.String(255), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("bound_at", _TIME, nullable=False),
        sa.Column("lease_until", _TIME, nullable=False),
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "postgresql":
        settings = ", ".join(f"{name} = {value}" for name, value in _VACUUM_SOON.items())
        for name in ("tubes", "requests", "leases"):
            op.execute(f"ALTER TABLE {name} SET ({settings})")


def _create_table(name: str, *columns: Any, **options: Any) -> None:
    """Create a table whose text compares byte for byte, spaces at its end included, as elsewhere by default."""
    dialect = op.get_bind().dialect
    if dialect.name in ("mysql", "mariadb"):
        collation = "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"
        for prefix in ("mysql", "mariadb"):
            options |= {f"{prefix}_engine": "InnoDB", f"{prefix}_charset": "utf8mb4", f"{prefix}_collate": collation}
    op.create_table(name, *columns, **options)
