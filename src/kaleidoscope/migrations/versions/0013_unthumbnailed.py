"""Assets without thumbnails are found by an index of their own."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

NAME = "ix_media_assets_unthumbnailed"


def upgrade() -> None:
    with op.get_context().autocommit_block():  # the ledger may be large
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}")
        op.execute(
            f"CREATE INDEX CONCURRENTLY {NAME} ON media_assets (photo_id)"
            " WHERE NOT is_thumbnailed AND file_hash IS NOT NULL"
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}")
