"""People: a small library is searched without an index, which costs more to keep than it saves."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

NAME = "ix_person_vectors_mean_builtin"


def upgrade() -> None:
    # A large one keeps what consolidation would build again.
    op.execute(
        "DO $$ BEGIN"
        " IF (SELECT count(*) FROM person_vectors WHERE pack = 'builtin' AND count > 0) <= 10000"
        f" THEN DROP INDEX IF EXISTS {NAME}; END IF; END $$"
    )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}")
        op.execute(
            f"CREATE INDEX CONCURRENTLY {NAME} ON person_vectors"
            " USING hnsw ((mean::vector(128)) vector_ip_ops) WITH (m = 24, ef_construction = 128)"
            " WHERE pack = 'builtin' AND count > 0"
        )
