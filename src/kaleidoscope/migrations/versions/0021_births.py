"""People: who has a birth date is found without reading everybody."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

NAME = "ix_persons_birth_date"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # Interrupted, it is left invalid: begin anew.
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}")
        op.execute(
            f"CREATE INDEX CONCURRENTLY {NAME} ON persons (birth_date) WHERE birth_date IS NOT NULL"
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}")
