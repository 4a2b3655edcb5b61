"""The library: how many were processed in the last hour, without reading every attempt."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

NAME = "ix_processing_attempts_processed"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # Interrupted, it is left invalid: begin anew.
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}")
        op.execute(
            f"CREATE INDEX CONCURRENTLY {NAME} ON processing_attempts (finished_at)"
            " WHERE outcome = 'PROCESSED'"
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}")
