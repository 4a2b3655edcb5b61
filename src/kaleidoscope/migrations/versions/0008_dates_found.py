"""How undated and doubtfully dated assets, and those of a camera, are found."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_media_assets_undated": "(photo_id) WHERE captured_at_source IS NULL",
    "ix_media_assets_doubtful": "(photo_id) WHERE captured_at_confidence = 'low'",
    "ix_media_assets_camera": "(camera_model, captured_at) WHERE camera_model IS NOT NULL",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, columns in INDEXES.items():
            # An attempt that was interrupted leaves an index that is none.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON media_assets {columns}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
