"""The ledger: what two passes say of an asset in the same words, it says once."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# As in 0006, but for where the problems come from.
TOLD = """
CREATE OR REPLACE FUNCTION media_assets_has_errors() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM changed) THEN
        RETURN NULL;
    END IF;
    PERFORM FROM media_assets WHERE photo_id IN (SELECT photo_id FROM changed)
        ORDER BY photo_id FOR NO KEY UPDATE;
    UPDATE media_assets m SET has_errors = told.error IS NOT NULL, error_message = told.error
    FROM (
        SELECT c.photo_id,
            string_agg(p.error, '; ' ORDER BY p.what <> 'recognised', p.since, p.what) AS error
        FROM (SELECT DISTINCT photo_id FROM changed) c LEFT JOIN {problems}
        GROUP BY c.photo_id
    ) told
    WHERE m.photo_id = told.photo_id
      AND (m.has_errors, m.error_message)
          IS DISTINCT FROM (told.error IS NOT NULL, told.error);
    RETURN NULL;
END $$
"""

ONCE = """LATERAL (
            SELECT DISTINCT ON (error) error, what, since FROM asset_problems
            WHERE photo_id = c.photo_id
            ORDER BY error, what <> 'recognised', since, what
        ) p ON true"""


def upgrade() -> None:
    op.execute(TOLD.format(problems=ONCE))


def downgrade() -> None:
    op.execute(TOLD.format(problems="asset_problems p USING (photo_id)"))
