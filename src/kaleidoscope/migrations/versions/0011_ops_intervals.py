"""Operation: the interval that a service promises, and how the disks fill."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

UP = """
ALTER TABLE system_status ADD interval_seconds DOUBLE PRECISION DEFAULT 20 NOT NULL;
ALTER TABLE system_status ADD CONSTRAINT ck_system_status_interval_seconds
    CHECK (interval_seconds > 0);
COMMENT ON COLUMN system_status.interval_seconds
    IS 'Seconds until the next heartbeat that the service promises';
ALTER TABLE system_status_history ADD interval_seconds DOUBLE PRECISION DEFAULT 20 NOT NULL;
ALTER TABLE system_status_history ADD CONSTRAINT ck_system_status_history_interval_seconds
    CHECK (interval_seconds > 0);
COMMENT ON COLUMN system_status_history.interval_seconds
    IS 'Seconds until the next heartbeat that the service promised; after three it was not up';

CREATE TABLE disk_usage (
    folder TEXT NOT NULL,
    measured_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    total_bytes BIGINT NOT NULL,
    used_bytes BIGINT NOT NULL,
    free_bytes BIGINT NOT NULL,
    CONSTRAINT pk_disk_usage PRIMARY KEY (folder, measured_at)
);
COMMENT ON TABLE disk_usage
    IS 'How full the disks were, measured now and then: tells when they will be full';
COMMENT ON COLUMN disk_usage.folder
    IS 'A folder on the disk, spelled by kernel.paths.to_text';
COMMENT ON COLUMN disk_usage.measured_at IS 'When it was measured';
COMMENT ON COLUMN disk_usage.total_bytes IS 'Size of the disk';
COMMENT ON COLUMN disk_usage.used_bytes IS 'What is used of it, by whatever';
COMMENT ON COLUMN disk_usage.free_bytes IS 'What our services may still use of it';
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute("DROP TABLE disk_usage")
    op.execute("ALTER TABLE system_status_history DROP interval_seconds")
    op.execute("ALTER TABLE system_status DROP interval_seconds")
