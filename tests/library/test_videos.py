"""Videos: their metadata is read in a process of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import uuid4

import av
import numpy as np
import pytest
from scans import Ledger, Register, scan
from sqlalchemy import text

from kaleidoscope.bus.handlers import Context, Retry
from kaleidoscope.bus.messages import Delivery
from kaleidoscope.bus.transports.memory import MemoryTransport
from kaleidoscope.kernel.db import Database
from kaleidoscope.library import jobs
from kaleidoscope.library.events import VideoToRead
from kaleidoscope.library.service import Registered


def film(path: Path) -> None:
    """Two seconds, 25 frames a second, 64 × 48."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(25))
        stream.width, stream.height = 64, 48
        for n in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), n, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


async def handle(db: Database, video: Registered) -> None:
    event = VideoToRead(
        photo_id=video.photo_id,
        path=video.path,
        created_at=datetime.now(UTC),
        attempt_id=video.attempt_id,
    )
    delivery = Delivery(
        topic=event.topic,
        payload={},
        id=uuid4(),
        group="videos",
        attempt=1,
        lost=0,
        receipt=None,
        enqueued_at=datetime.now(UTC),
    )
    await jobs.read_metadata(Context(db, MemoryTransport(), delivery), event)


async def test_a_video_is_read(
    db: Database, register: Register, ledger: Ledger, tmp_path: Path
) -> None:
    film(tmp_path / "a.mp4")
    (video,) = await register([scan(tmp_path / "a.mp4", "video")])
    await handle(db, video)
    await handle(db, video)  # delivered twice
    found = (await ledger())["a.mp4"]
    assert (found.status, found.media_type) == ("PROCESSED", "video")
    assert (found.width, found.height) == (64, 48)
    assert (float(found.duration_seconds), float(found.frame_rate)) == (2.0, 25.0)
    assert found.no_faces is None  # nobody has looked for one
    async with db.transaction() as session:
        told = await session.execute(text("SELECT payload ->> 'outcome' FROM bus_outbox"))
        assert list(told.scalars()) == ["PROCESSED"]


async def test_a_broken_video_fails_for_good(
    db: Database, register: Register, ledger: Ledger, tmp_path: Path
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    (video,) = await register([scan(tmp_path / "a.mp4", "video")])
    await handle(db, video)
    found = (await ledger())["a.mp4"]
    assert (found.status, found.next_retry_at) == ("FAILED", None)
    assert "a.mp4: the video cannot be read" in found.error_message


async def test_a_video_that_is_filed_again_while_it_is_read_has_not_failed(
    db: Database,
    register: Register,
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    film(tmp_path / "a.mp4")
    (video,) = await register([scan(tmp_path / "a.mp4", "video")])
    (tmp_path / "filed").mkdir()
    reader = jobs._reader()

    class Late:
        """The reader, who comes when the file has just been moved."""

        async def run(self, tasks: Any, *, name: str) -> Any:
            (tmp_path / "a.mp4").rename(tmp_path / "filed" / "a.mp4")
            async with db.transaction() as session:
                await session.execute(
                    text("UPDATE media_assets SET final_path = :path"),
                    {"path": str(tmp_path / "filed" / "a.mp4")},
                )
            return await reader.run(tasks, name=name)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "_reader", Late)
        with pytest.raises(Retry, match="filed elsewhere") as retry:
            await handle(db, video)
    assert not retry.value.count
    await handle(db, video)
    assert (await ledger())["filed/a.mp4"].status == "PROCESSED"


async def test_a_video_that_is_gone_is_tried_again(
    db: Database, register: Register, ledger: Ledger, tmp_path: Path
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    (video,) = await register([scan(tmp_path / "a.mp4", "video")])
    (tmp_path / "a.mp4").unlink()
    await handle(db, video)
    found = (await ledger())["a.mp4"]
    assert found.status == "FAILED" and found.next_retry_at is not None
