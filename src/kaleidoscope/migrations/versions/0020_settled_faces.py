"""People: which faces a round of consolidation has seen, and when all of a person's were."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        ALTER TABLE consolidations
            ADD COLUMN looked_at TIMESTAMPTZ NOT NULL DEFAULT to_timestamp(0),
            ADD COLUMN thorough_version BIGINT NOT NULL DEFAULT 0
    """)
    op.execute("""
        COMMENT ON COLUMN consolidations.looked_at IS
            'Faces created before then were there in the last round';
        COMMENT ON COLUMN consolidations.thorough_version IS
            'Persons changed at this version or later are still to be taken apart as a whole'
    """)


def downgrade() -> None:
    op.execute("ALTER TABLE consolidations DROP COLUMN thorough_version, DROP COLUMN looked_at")
