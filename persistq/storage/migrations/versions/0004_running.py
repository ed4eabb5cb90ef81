"""The index of lists without the jobs that are being performed, so that a claim and a settlement write less."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Apply the revision."""
    if op.get_bind().dialect.name not in ("sqlite", "postgresql"):
        return  # there are no partial indexes
    condition = sa.text("status != 'processing'")
    op.drop_index("jobs_status", "jobs")
    op.create_index(
        "jobs_status", "jobs", [sa.text("(status || '')"), "id"], sqlite_where=condition, postgresql_where=condition
    )
