"""People: how a picture looks as a whole, and which faces are those of a copy of it."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

INDEX = "ix_faces_copy_of"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE pictures (
            photo_id BIGINT NOT NULL PRIMARY KEY
                REFERENCES media_assets (photo_id) ON DELETE CASCADE,
            hash BIGINT NOT NULL,
            bands INTEGER[] NOT NULL,
            width INTEGER NOT NULL,
            height INTEGER NOT NULL,
            CONSTRAINT ck_pictures_four_bands CHECK (cardinality(bands) = 4)
        )
    """)
    op.execute("CREATE INDEX ix_pictures_bands ON pictures USING gin (bands)")
    op.execute("""
        COMMENT ON TABLE pictures IS
            'How photos with faces look as a whole: copies of one look the same';
        COMMENT ON COLUMN pictures.photo_id IS 'The photo';
        COMMENT ON COLUMN pictures.hash IS
            'Perceptual hash of its lowest frequencies; in copies few of the 64 bits differ';
        COMMENT ON COLUMN pictures.bands IS
            'The hash in four numbered parts: who differs in three bits has one in common';
        COMMENT ON COLUMN pictures.width IS 'Displayed pixels that the faces'' boxes refer to';
        COMMENT ON COLUMN pictures.height IS 'Displayed pixels that the faces'' boxes refer to';
    """)
    op.execute(
        "ALTER TABLE faces ADD COLUMN copy_of BIGINT"
        " CONSTRAINT fk_faces_copy_of_faces REFERENCES faces (id) ON DELETE SET NULL"
    )
    op.execute(
        "COMMENT ON COLUMN faces.copy_of IS"
        " 'The same face in a picture of which this photo is a copy: counted there'"
    )
    with op.get_context().autocommit_block():
        # Interrupted, it is left invalid: begin anew.
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}")
        op.execute(
            f"CREATE INDEX CONCURRENTLY {INDEX} ON faces (copy_of) WHERE copy_of IS NOT NULL"
        )


def downgrade() -> None:
    op.execute("ALTER TABLE faces DROP COLUMN copy_of")
    op.execute("DROP TABLE pictures")
