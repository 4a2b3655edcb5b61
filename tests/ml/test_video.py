"""What a video says about itself."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from kaleidoscope.kernel.errors import NotFound, UnreadableMedia
from kaleidoscope.ml import video
from kaleidoscope.ml.decode import probe


def film(path: Path, *, seconds: int = 2, **metadata: str) -> Path:
    """A film of 96 × 64 pixels, 10 frames a second."""
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata)
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.time_base = 96, 64, Fraction(1, 10)
        for number in range(10 * seconds):
            picture = np.full((64, 96, 3), 10 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.avi"])
def test_metadata(tmp_path: Path, name: str) -> None:
    info = video.read(film(tmp_path / name))
    assert (info.width, info.height, info.codec) == (96, 64, "mpeg4")
    assert info.duration == pytest.approx(2.0, abs=0.15)
    assert info.frame_rate == pytest.approx(10)
    assert "creation_time" not in info.tags


def test_when_it_was_made(tmp_path: Path) -> None:
    made = "2021-05-06T07:08:09.000000Z"
    assert video.read(film(tmp_path / "a.mp4", creation_time=made)).tags["creation_time"] == made


def test_plain_data_for_the_pool(tmp_path: Path) -> None:
    told = video.read_file(str(film(tmp_path / "ä.mp4")))
    assert (told["width"], told["height"]) == (96, 64)


def test_probe_tells_videos_from_photos(tmp_path: Path) -> None:
    info = probe(film(tmp_path / "a.jpg.mp4"))
    assert (info.mime_type, info.media_type, info.width) == ("video/mp4", "video", 96)


def test_causes(tmp_path: Path) -> None:
    cut = film(tmp_path / "cut.mp4")
    cut.write_bytes(cut.read_bytes()[:200])
    for path, error in ((cut, UnreadableMedia), (tmp_path / "gone.mp4", NotFound)):
        with pytest.raises(error, match=str(path)):
            video.read(path)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(UnreadableMedia, match="is an empty file"):
        video.read(tmp_path / "empty.mp4")
