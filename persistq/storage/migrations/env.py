"""Runs revisions on the connection, and in the transaction, that migrate.py hands over."""

from alembic import context

from persistq.storage.schema import VERSION_TABLE, Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
    # Not Alembic's own name: the queue may live in a database whose application has revisions too.
    version_table=VERSION_TABLE,
)
context.run_migrations()
