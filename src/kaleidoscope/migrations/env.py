"""Alembic's way in, called by `kernel.migrate` with a connection."""

from alembic import context

from kaleidoscope.kernel.db import Base

# Each revision is a transaction of its own, so that one with `autocommit_block()` (an index built
# CONCURRENTLY) can stand between others.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
