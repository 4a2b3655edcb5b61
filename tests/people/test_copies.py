"""Copies of a picture: everybody in them is who they are there, and they count once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from album import Album, detection, face
from PIL import Image

from kaleidoscope.ml.picture import perceptual_hash
from kaleidoscope.people import jobs, service
from kaleidoscope.people.queries.pictures import DIFFERENT
from kaleidoscope.people.rules.copies import Known, originals
from kaleidoscope.people.rules.matching import Sight, Sitting

HASH = "00ff00ff00ff00ff"
NEAR = "00ff00ff00ff00f8"  # three bits of it differ
FAR = "00ff00ff00ff00f0"  # four
BLURRED = 0.35  # noise with which a face is .89 like itself: it would join nobody


def meta(picture: str | None, width: int = 800, height: int = 600) -> dict[str, Any]:
    return {
        "pack": "builtin",
        "model_version": "builtin/test",
        "width": width,
        "height": height,
        "picture_hash": picture,
    }


def smaller(vector: np.ndarray, place: int, **more: Any) -> dict[str, Any]:
    """A face as in a copy of half the size."""
    found = detection(vector, place, **more)
    return {**found, "bbox": [v / 2 for v in found["bbox"]], "quality": {"score": 0.4}, **more}


async def original(album: Album, *people: int) -> list[int | None]:
    photo = await album.add()
    found = [detection(face(p, i), i, quality={"score": 0.7}) for i, p in enumerate(people)]
    await album.deliver(album.callback(photo, found, meta=meta(HASH)))
    return await album.persons(photo[0])


async def copy(
    album: Album, *people: int, picture: str | None = NEAR, **more: Any
) -> tuple[int, list[int | None]]:
    photo = await album.add()
    found = [
        smaller(face(p, 50 + i, BLURRED), i, **more.get("face", {})) for i, p in enumerate(people)
    ]
    size = more.get("size", (400, 300))
    await album.deliver(album.callback(photo, found, meta=meta(picture, *size)))
    return photo[0], await album.persons(photo[0])


async def test_a_blurred_copy_has_the_persons_of_the_picture(album: Album) -> None:
    persons = await original(album, 1, 2)
    _, copied = await copy(album, 1, 2)
    assert copied == persons
    assert await album.rows("SELECT count FROM person_vectors") == [(1,), (1,)], "counted once"
    await album.check()


@pytest.mark.parametrize(
    "other",
    [
        {"picture": FAR},
        {"picture": None},
        {"size": (300, 300)},
        {"face": {"bbox": [200.0, 5.0, 240.0, 45.0]}},
        {"face": {"quality": {"score": 1.0}}},
    ],
    ids=["looks different", "nobody looked", "other shape", "other place", "far better"],
)
async def test_what_is_no_copy_is_looked_at_for_itself(album: Album, other: dict[str, Any]) -> None:
    [anna] = await original(album, 1)
    _, [someone] = await copy(album, 1, **other)
    assert someone not in (None, anna)


async def test_a_stranger_in_the_same_place_is_no_copy(album: Album) -> None:
    [anna] = await original(album, 1)
    _, [someone] = await copy(album, 2)
    assert someone not in (None, anna)


async def test_copies_move_with_the_picture_and_move_nobody(album: Album) -> None:
    """Consolidation merges two halves of a person; a hundred copies are no hundred witnesses."""
    [anna] = await original(album, 1)
    copies = [await copy(album, 1) for _ in range(3)]
    assert [persons for _, persons in copies] == [[anna]] * 3
    version = await album.value("SELECT version FROM persons WHERE id = :id", id=anna)
    await copy(album, 1)
    unchanged = await album.value("SELECT version FROM persons WHERE id = :id", id=anna)
    assert unchanged == version, "a copy changes nobody"
    _, [ben] = await album.shoot(9)
    assert anna and ben
    async with album.db.transaction() as session:
        await service.merge(session, ben, [anna])
    assert [await album.persons(photo) for photo, _ in copies] == [[ben]] * 3
    await album.check()
    await jobs.consolidate(album.db, everybody=True)
    assert [await album.persons(photo) for photo, _ in copies] == [[ben]] * 3
    await album.check()


async def test_when_the_picture_is_gone_its_copy_counts(album: Album) -> None:
    [anna] = await original(album, 1)
    photo, [copied] = await copy(album, 1)
    assert copied == anna
    first = await album.value("SELECT min(photo_id) FROM faces")
    await album.again(first, [])
    assert await album.persons(first) == []
    assert await album.persons(photo) == [anna]
    assert await album.value("SELECT count FROM person_vectors WHERE person_id = :id", id=anna) == 1
    await album.check()


async def test_a_no_is_remembered_in_copies_too(album: Album) -> None:
    [anna] = await original(album, 1)
    photo, _ = await copy(album, 1)
    [face_id] = await album.face_ids(photo)
    async with album.db.transaction() as session:
        await service.reject(session, face_id)
    await album.again(photo, [smaller(face(1, 50, BLURRED), 0)], meta=meta(NEAR, 400, 300))
    assert (await album.persons(photo))[0] != anna
    await album.check()


def test_the_most_similar_of_several_pictures_is_taken() -> None:
    box, vector = [0.0, 0.0, 50.0, 50.0], face(1)
    known = [
        Known(n, n, box, (100, 100), 1.0, face(1, n, noise)) for n, noise in ((7, 0.3), (8, 0.1))
    ]
    sitting = Sitting([Sight()], vector[None], [None])
    [found] = originals([box], (100, 100), sitting, known, 0.5)
    assert found is known[1]


def test_small_recompressed_pictures_look_the_same() -> None:
    """Of drawn landscapes: gradients with blots; every copy is near, no two are."""
    rng, y, x = np.random.default_rng(1), *np.mgrid[0:480, 0:640] / 480.0
    pictures = []
    for _ in range(12):
        waves = sum(
            rng.normal() * np.cos(rng.uniform(1, 9) * x + rng.uniform(1, 9) * y) for _ in range(8)
        )
        grey = 128 + 40 * np.asarray(waves)
        pictures.append(np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2))
    hashes = [int(perceptual_hash(picture), 16) for picture in pictures]
    for picture, own in zip(pictures, hashes, strict=True):
        small = np.asarray(Image.fromarray(picture).resize((448, 336), Image.Resampling.LANCZOS))
        assert (int(perceptual_hash(small), 16) ^ own).bit_count() <= DIFFERENT
    apart = [(a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(apart) > DIFFERENT
