"""People: the search index follows a person's mean when it has moved, not with every face.

A small library has none: to keep it costs more than it saves. That of a large one is built by the
next consolidation that needs it, with the memory that this takes.
"""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

DROP_ALL = """
    DO $$ DECLARE name TEXT; BEGIN
        FOR name IN SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()
            AND tablename = 'person_vectors' AND indexname LIKE 'ix\\_person\\_vectors\\_%' LOOP
            EXECUTE format('DROP INDEX %I', name);
        END LOOP;
    END $$
"""


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


def downgrade() -> None:
    op.execute(DROP_ALL)
    op.execute("ALTER TABLE person_vectors DROP COLUMN IF EXISTS indexed")
    op.execute("ALTER TABLE person_vectors RESET (fillfactor)")
    with op.get_context().autocommit_block():
        # Interrupted, it is left invalid: begin anew.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_person_vectors_mean_builtin")
        op.execute(
            "CREATE INDEX CONCURRENTLY ix_person_vectors_mean_builtin ON person_vectors"
            " USING hnsw ((mean::vector(128)) vector_ip_ops)"
            " WITH (m = 24, ef_construction = 128) WHERE pack = 'builtin' AND count > 0"
        )
