"""Consolidation: what one round did can be taken back as a whole."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE identity_events ADD COLUMN round BIGINT")
    op.execute(
        "COMMENT ON COLUMN identity_events.round"
        " IS 'The consolidation it was part of: the number of its first event'"
    )
    op.execute(
        "ALTER TABLE identity_events ADD CONSTRAINT fk_identity_events_round"
        " FOREIGN KEY (round) REFERENCES identity_events (id)"
    )
    op.execute(
        "CREATE INDEX ix_identity_events_round ON identity_events (round) WHERE round IS NOT NULL"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE identity_events DROP COLUMN round")
