"""What ingest says to its own workers: the only spelling of these messages."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from kaleidoscope.bus.messages import Event


class FolderToIngest(Event):
    """A job waits for its scan."""

    topic: ClassVar[str] = "folders-to-ingest"
    job_id: UUID

    def key(self) -> str:
        """The job: one worker at a time scans it."""
        return str(self.job_id)


class BatchesToPublish(Event):
    """Batches of a job are to be published again."""

    topic: ClassVar[str] = "batches-to-publish"
    job_id: UUID
    batch_ids: tuple[int, ...]

    def key(self) -> str:
        """The job."""
        return str(self.job_id)
