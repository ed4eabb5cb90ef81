"""The audit log, and what consumers are told and tell besides."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import LONGTEXT

revision = "0003"
down_revision = "0002"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.BigInteger
_TEXT = sa.Text().with_variant(LONGTEXT, "mysql", "mariadb")
_REFUSAL = "the audit log is append-only"


def upgrade() -> None:
    """Apply the revision."""
    options: dict[str, Any] = {}
    dialect = op.get_bind().dialect
    if dialect.name in ("mysql", "mariadb"):
        collation = "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"
        for prefix in ("mysql", "mariadb"):
            options |= {f"{prefix}_engine": "InnoDB", f"{prefix}_charset": "utf8mb4", f"{prefix}_collate": collation}
    op.create_table(
        "audit",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("operation", _ID),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("step", sa.String(16), nullable=False),
        sa.Column("via", sa.String(16), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("reason", _TEXT),
        sa.Column("scope", _TEXT, nullable=False),
        sa.Column("counts", _TEXT, nullable=False),
        sqlite_autoincrement=True,
        **options,
    )
    op.create_index("audit_operation", "audit", ["operation", "id"])
    {"sqlite": _protect_sqlite, "postgresql": _protect_postgresql}.get(dialect.name, _protect_mariadb)()
    _extend_consumers(dialect.name)


def _protect_sqlite() -> None:
    for name, when in (
        ("audit_no_update", "UPDATE ON audit"),
        ("audit_no_delete", "DELETE ON audit"),
        # REPLACE would delete the old line without a trigger's being asked.
        ("audit_no_replace", "INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)"),
    ):
        op.execute(f"CREATE TRIGGER {name} BEFORE {when} BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END")


def _protect_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_refuse()"
    )
    op.execute(
        "CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()"
    )


def _protect_mariadb() -> None:
    for name, verb in (("audit_no_update", "UPDATE"), ("audit_no_delete", "DELETE")):
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {verb} ON audit FOR EACH ROW "
            f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{_REFUSAL}'"
        )


def _extend_consumers(dialect: str) -> None:
    if dialect != "sqlite":
        op.add_column("consumers", sa.Column("tasks", _TEXT))
        op.add_column("consumers", sa.Column("wish", sa.String(16)))
        return
    # Nothing depends on this table: whoever lives writes itself down again within seconds.
    op.drop_table("consumers")
    op.create_table(
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
        sa.Column("tasks", _TEXT),
        sa.Column("wish", sa.String(16)),
    )
