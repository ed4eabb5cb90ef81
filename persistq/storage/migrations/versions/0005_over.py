"""The index of lists for jobs that are over alone, so that whatever adds or claims a job writes one index less."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Apply the revision."""
    if op.get_bind().dialect.name not in ("sqlite", "postgresql"):
        return  # there are no partial indexes
    condition = sa.text("finished_at IS NOT NULL")
    op.drop_index("jobs_status", "jobs")
    op.create_index(
        "jobs_status", "jobs", [sa.text("(status || '')"), "id"], sqlite_where=condition, postgresql_where=condition
    )
