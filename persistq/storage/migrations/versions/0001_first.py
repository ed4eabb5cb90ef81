"""The first schema: jobs, their history, counts, timings, queues and consumers."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import LONGTEXT

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.BigInteger
_TEXT = sa.Text().with_variant(LONGTEXT, "mysql", "mariadb")

_VACUUM_SOON = {
    # A queue rewrites its rows all day: by default dead ones may fill a fifth of a table before anyone looks.
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_threshold": "1000",
    "autovacuum_vacuum_cost_delay": "0",
    "autovacuum_analyze_scale_factor": "0.05",
}


def upgrade() -> None:
    """Apply the revision."""
    _create_table(
        "jobs",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("queue", sa.String(64), nullable=False),
        sa.Column("task", sa.String(64)),
        sa.Column("item", _TEXT, nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("timeout", sa.Double),
        sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("consumer_id", sa.String(255)),
        sa.Column("assigned_to", sa.String(255)),
        sa.Column("delayed", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("suspect", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("run_at", _TIME, nullable=False),
        sa.Column("lease_until", _TIME),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("started_at", _TIME),
        sa.Column("finished_at", _TIME),
        sa.Column("error", _TEXT),
        sa.Column("result", _TEXT),
        sa.Column("unique_key", sa.String(255)),
        sqlite_autoincrement=True,
    )
    partial = op.get_bind().dialect.name in ("sqlite", "postgresql")
    # Where there are no partial indexes, the columns of the condition stand in front.
    for name, before, columns, where in (
        ("jobs_claim", ["status", "delayed"], ["queue", sa.text("priority DESC"), "id"],
         "status = 'pending' AND delayed = 0"),
        ("jobs_delayed", ["status", "delayed"], ["run_at"], "status = 'pending' AND delayed = 1"),
        ("jobs_lease", ["status"], ["lease_until"], "status = 'processing'"),
        ("jobs_finished", [], ["status", "finished_at"], "finished_at IS NOT NULL"),
        ("jobs_unique", [], ["queue", "unique_key"], "unique_key IS NOT NULL"),
    ):  # fmt: skip
        condition = sa.text(where)
        indexed: list[Any] = columns if partial else [*before, *columns]
        op.create_index(
            name, "jobs", indexed, unique=name == "jobs_unique",
            sqlite_where=condition, postgresql_where=condition,
        )  # fmt: skip
    if partial:  # elsewhere every job would pass through it
        condition = sa.text("status = 'pending' AND attempts > 0")
        op.create_index("jobs_crashed", "jobs", ["id"], sqlite_where=condition, postgresql_where=condition)
    listed: list[Any] = [sa.text("(status || '')") if partial else "status", "id"]
    op.create_index("jobs_status", "jobs", listed)
    _create_table(
        "events",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("job_id", _ID, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(255)),
        sa.Column("attempt", sa.Integer),
        sa.Column("detail", _TEXT, nullable=False),
    )
    op.create_index("events_job", "events", ["job_id", "id"])
    _create_table(
        "tallies",
        sa.Column("queue", sa.String(64), primary_key=True),
        sa.Column("slot", sa.BigInteger, primary_key=True, autoincrement=False),
        *(
            sa.Column(status, sa.BigInteger, nullable=False)
            for status in ("pending", "processing", "done", "failed", "cancelled")
        ),
        sqlite_with_rowid=False,
    )
    _create_table(
        "timings",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("data", _TEXT, nullable=False),
    )
    op.create_index("timings_at", "timings", ["at", "id"])
    _create_table(
        "queues",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("paused_at", _TIME),
    )
    _create_table(
        "consumers",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("queues", _TEXT, nullable=False),
        sa.Column("concurrency", sa.Integer, nullable=False),
        sa.Column("running", sa.Integer, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("seen_at", _TIME, nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        settings = ", ".join(f"{name} = {value}" for name, value in _VACUUM_SOON.items())
        for name in ("jobs", "tallies", "timings", "consumers"):
            op.execute(f"ALTER TABLE {name} SET ({settings})")


def _create_table(name: str, *columns: Any, **options: Any) -> None:
    """Create a table whose text compares byte for byte, spaces at its end included, as elsewhere by default."""
    dialect = op.get_bind().dialect
    if dialect.name in ("mysql", "mariadb"):
        collation = "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"
        for prefix in ("mysql", "mariadb"):
            options |= {f"{prefix}_engine": "InnoDB", f"{prefix}_charset": "utf8mb4", f"{prefix}_collate": collation}
    op.create_table(name, *columns, **options)
