"""People: the search index follows a person's mean when it has moved, not with every face.

A small library has none: to keep it costs more than it saves.
"""

from alembic import op
from sqlalchemy import text

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

LARGE = 10_000  # persons

# Those of other packs are built by the next consolidation that needs them.
DROP_ALL = """
    DO $$ DECLARE name TEXT; BEGIN
        FOR name IN SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()
            AND tablename = 'person_vectors' AND indexname LIKE 'ix\\_person\\_vectors\\_%' LOOP
            EXECUTE format('DROP INDEX %I', name);
        END LOOP;
    END $$
"""
COUNT = text("SELECT count(*) FROM person_vectors WHERE pack = 'builtin' AND count > 0")


def upgrade() -> None:
    op.execute(DROP_ALL)
    op.execute("ALTER TABLE person_vectors ADD COLUMN IF NOT EXISTS indexed VECTOR")
    # Room in each page: who is written anew there is not entered into the index again.
    op.execute("ALTER TABLE person_vectors SET (fillfactor = 70)")
    op.execute("UPDATE person_vectors SET indexed = mean WHERE indexed IS NULL")
    op.execute("ALTER TABLE person_vectors ALTER COLUMN indexed SET NOT NULL")
    op.execute("""
        COMMENT ON COLUMN person_vectors.indexed IS
            'The mean as the search index has it: it follows once it is .03 away'
    """)
    if op.get_bind().scalar(COUNT) > LARGE:
        _build("indexed", "pack = 'builtin'")


def downgrade() -> None:
    op.execute(DROP_ALL)
    op.execute("ALTER TABLE person_vectors DROP COLUMN IF EXISTS indexed")
    op.execute("ALTER TABLE person_vectors RESET (fillfactor)")
    _build("mean", "pack = 'builtin' AND count > 0")


def _build(column: str, condition: str) -> None:
    name = f"ix_person_vectors_{column}_builtin"
    with op.get_context().autocommit_block():
        # Interrupted, it is left invalid: begin anew.
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute(
            f"CREATE INDEX CONCURRENTLY {name} ON person_vectors"
            f" USING hnsw (({column}::vector(128)) vector_ip_ops)"
            f" WITH (m = 24, ef_construction = 128) WHERE {condition}"
        )
