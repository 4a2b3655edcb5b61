"""The callback: who is recognised, who is founded, and what a second delivery does."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import numpy as np
import pytest
from album import Album, detection, face

from kaleidoscope.kernel.errors import Conflict, Invalid, NotFound
from kaleidoscope.library import service as library
from kaleidoscope.people import service
from kaleidoscope.people.schemas import encode_vector


async def test_the_same_person_gets_the_same_id(album: Album) -> None:
    first, [anna] = await album.shoot(1, view=1)
    _, [again] = await album.shoot(1, view=2)
    _, [ben, anna_too] = await album.shoot(2, 1, view=3)
    assert anna == again == anna_too
    assert ben is not None and ben != anna
    async with album.db.transaction() as session:
        photo = await library.get(session, first)
    assert (photo.status, photo.no_faces, photo.person_ids) == ("PROCESSED", False, [anna])
    await album.check()


async def test_no_faces(album: Album) -> None:
    photo_id, persons = await album.shoot()
    async with album.db.transaction() as session:
        photo = await library.get(session, photo_id)
    assert (photo.status, photo.no_faces, photo.person_ids) == ("PROCESSED", True, [])
    assert persons == []


async def test_a_second_delivery_gets_the_first_answer(album: Album) -> None:
    callback = album.callback(await album.add(), [detection(face(1))])
    answers = [await album.deliver(callback) for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(answers[0].created_person_ids) == 1
    assert await album.value("SELECT count(*) FROM faces") == 1
    await album.check()


async def test_a_callback_without_an_attempt_is_known_by_its_content(album: Album) -> None:
    photo = await album.add()
    callback = album.callback(photo, [detection(face(1))]).model_copy(update={"attempt_id": None})
    assert await album.deliver(callback) == await album.deliver(callback)
    assert await album.value("SELECT count(*) FROM faces") == 1


async def test_a_superseded_attempt_is_refused_and_writes_nothing(album: Album) -> None:
    photo = await album.add()
    async with album.db.transaction() as session:
        await library.new_attempt(session, photo[0])
    with pytest.raises(Conflict, match="superseded"):
        await album.deliver(album.callback(photo, [detection(face(1))]))
    assert await album.value("SELECT count(*) FROM persons") == 0


async def test_a_failure_is_recorded_with_its_cause(album: Album) -> None:
    photo = await album.add()
    error = {"code": "unreadable-media", "message": "truncated", "permanent": True}
    callback = album.callback(photo, [], status="FAILED", error=error)
    await album.deliver(callback)
    async with album.db.transaction() as session:
        found = await library.get(session, photo[0])
    assert (found.status, found.error_message) == ("FAILED", "truncated")
    assert found.next_retry_at is None


async def test_two_faces_of_one_photo_are_two_people(album: Album) -> None:
    _, [anna] = await album.shoot(1, view=1)
    near = face(1, 2)
    sister = face(1, 3, noise=0.3)
    photo = await album.add()
    await album.deliver(album.callback(photo, [detection(near, 0), detection(sister, 1)]))
    persons = await album.persons(photo[0])
    assert persons[0] == anna
    assert persons[1] not in (anna, None)
    await album.check()


async def test_a_mirror_shows_one_person_twice(album: Album) -> None:
    photo = await album.add()
    seen, mirrored = face(1), face(1, 9, noise=0.02)
    await album.deliver(album.callback(photo, [detection(seen, 0), detection(mirrored, 1)]))
    persons = await album.persons(photo[0])
    assert persons[0] == persons[1] is not None
    async with album.db.transaction() as session:
        assert (await library.get(session, photo[0])).person_ids == [persons[0]]
    await album.check()


async def test_a_poor_face_may_join_and_never_founds(album: Album) -> None:
    poor = {"score": 0.15}
    stranger, known = await album.add(), await album.add()
    await album.deliver(album.callback(stranger, [detection(face(1), quality=poor)]))
    assert await album.persons(stranger[0]) == [None]
    _, [anna] = await album.shoot(1, view=1)
    await album.deliver(album.callback(known, [detection(face(1, 2), quality=poor)]))
    assert await album.persons(known[0]) == [anna]
    await album.check()


async def test_a_copy_gets_the_person_of_its_original(album: Album) -> None:
    """Even where the person's average is far from it: one of many unlike faces."""
    _, [anna] = await album.shoot(1, view=1)
    others = [await album.shoot(n) for n in (2, 3, 4, 5)]
    async with album.db.transaction() as session:
        await service.merge(session, anna, [persons[0] for _, persons in others])
    copy = await album.add()
    near = face(1, 1) + 0.01 * face(77)
    await album.deliver(album.callback(copy, [detection(near)]))
    assert await album.persons(copy[0]) == [anna]


async def test_the_suggestion_is_overruled_by_the_present_state(album: Album) -> None:
    _, [anna] = await album.shoot(1)
    _, [ben] = await album.shoot(2)
    photo = await album.add()
    wrong = detection(face(1, 5), suggested_person_id=ben, similarity=0.99)
    await album.deliver(album.callback(photo, [wrong]))
    assert await album.persons(photo[0]) == [anna]
    suggested = "SELECT suggested_person_id FROM faces WHERE photo_id = :photo"
    assert await album.value(suggested, photo=photo[0]) == ben


async def test_a_new_person_takes_the_suggested_name(album: Album) -> None:
    named = {"temp_id": "t-1", "suggested_display_name": "Anna"}
    unnamed = {"temp_id": "t-2", "suggested_display_name": "unknown"}
    faces = [
        detection(face(1), 0, suggested_person_id="t-1"),
        detection(face(2), 1, suggested_person_id="t-2"),
    ]
    callback = album.callback(await album.add(), faces, new_persons=[named, unnamed])
    answer = await album.deliver(callback)
    names = await album.rows("SELECT display_name FROM persons ORDER BY id")
    assert [row.display_name for row in names] == ["Anna", None]
    assert len(answer.created_person_ids) == 2


async def test_the_seeds_own_example_is_accepted(album: Album) -> None:
    photo_id, path, _ = await album.add()
    vector = encode_vector(face(1))
    callback = album.callback((photo_id, path, uuid4()), []).model_validate(
        {
            "photo_id": photo_id,
            "path": path,
            "status": "PROCESSED",
            "detections": [
                {
                    "bbox": [1, 2, 30, 40],
                    "embedding": vector,
                    "confidence": 0.98,
                    "suggested_person_id": 45,
                    "similarity": 0.82,
                }
            ],
            "new_persons": [
                {"temp_id": "t-1", "embedding": vector, "suggested_display_name": "unknown"}
            ],
            "meta": {"model_version": "insightface-v2"},
        }
    )
    answer = await album.deliver(callback)
    assert answer.ok
    assert await album.persons(photo_id) == answer.created_person_ids


async def test_what_contradicts_itself_is_refused(album: Album) -> None:
    photo = await album.add()
    with pytest.raises(NotFound, match="no photo 5"):
        await album.deliver(album.callback((5, "/x.jpg", uuid4()), []))
    with pytest.raises(Invalid, match="not /elsewhere"):
        await album.deliver(album.callback((photo[0], "/elsewhere.jpg", photo[2]), []))
    with pytest.raises(Invalid, match="has 3 numbers, builtin has 128"):
        await album.deliver(album.callback(photo, [detection(np.ones(3, np.float32))]))
    unexplained = detection(face(1), suggested_person_id="t-9")
    with pytest.raises(Invalid, match="t-9"):
        await album.deliver(album.callback(photo, [unexplained]))
    assert await album.value("SELECT count(*) FROM faces") == 0


async def file_again(album: Album, photo: tuple[int, str, UUID]) -> None:
    """Custody moves a photo's file after its date was corrected."""
    await album.rows(
        "INSERT INTO custody_moves (kind, state, source_path, source_identity, size_bytes,"
        " file_hash, target_path, target_identity, photo_id, recorded_at, released_at)"
        " VALUES ('refile', 'RELEASED', :old, '1:1:1:1', 1, repeat('a', 64), '/filed/again.jpg',"
        " '1:1:1:1', :id, now(), now()) RETURNING 1",
        old=photo[1],
        id=photo[0],
    )
    await album.rows(
        "UPDATE media_assets SET final_path = '/filed/again.jpg', status = 'PROCESSING'"
        " WHERE photo_id = :id RETURNING 1",
        id=photo[0],
    )


async def test_what_was_seen_before_it_was_filed_again_counts(album: Album) -> None:
    photo = await album.add()
    await file_again(album, photo)
    callback = album.callback(photo, [detection(face(1))])
    answers = [await album.deliver(callback) for _ in range(2)]
    assert answers[0] == answers[1] and len(answers[0].created_person_ids) == 1
    async with album.db.transaction() as session:
        found = await library.get(session, photo[0])
    assert (found.status, found.path) == ("PROCESSED", "/filed/again.jpg")
    await album.check()


async def test_a_photo_that_was_looked_for_where_it_lay_before_has_not_failed(
    album: Album,
) -> None:
    """It was filed again while it waited in the queue of the ML service."""
    photo = await album.add()
    await file_again(album, photo)
    error = {"code": "not-found", "message": f"{photo[1]}: no such file", "permanent": True}
    failed = album.callback(photo, [], status="FAILED", error=error)
    for _ in range(2):
        await album.deliver(failed)
    async with album.db.transaction() as session:
        found = await library.get(session, photo[0])
    assert (found.status, found.retry_count, found.error_message) == ("READY", 0, None)
    asked = await album.rows("SELECT payload FROM bus_outbox WHERE topic = 'photos-to-process'")
    assert [(row.payload["path"], row.payload["attempt_id"]) for row in asked] == [
        ("/filed/again.jpg", str(found.attempt_id))
    ]
    assert found.attempt_id != photo[2]
    now = (photo[0], "/filed/again.jpg", found.attempt_id)
    await album.deliver(album.callback(now, [], status="FAILED", error=error))
    assert await album.value("SELECT status::text FROM media_assets") == "FAILED"  # now it has


@pytest.mark.parametrize(
    "wrong",
    [
        {"bbox": [10, 10, 5, 20]},
        {"bbox": [10, 10, float("nan"), 20]},
        {"bbox": [10, 10, 20]},
        {"embedding": "not base64"},
        {"embedding": encode_vector(np.array([1, np.inf], np.float32))},
        {"embedding": encode_vector(np.zeros(128, np.float32))},
        {"confidence": 2},
        {"suggested_person_id": -1},
    ],
)
async def test_a_malformed_detection_is_refused(album: Album, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        album.callback((1, "/x.jpg", uuid4()), [{**detection(face(1)), **wrong}])


async def test_processing_again_moves_nothing_a_person_said(album: Album) -> None:
    photo_id, [anna, ben] = await album.shoot(1, 2)
    face_ids = await album.face_ids(photo_id)
    async with album.db.transaction() as session:
        await service.rename(session, anna, "Anna")
        await service.confirm(session, face_ids[0])
        await service.reject(session, face_ids[1])
    moved = detection(face(3), 0)  # another face by its vector, in the place of Anna's
    moved["bbox"] = [v + 3 for v in moved["bbox"]]
    await album.again(photo_id, [moved, detection(face(2, 5), 1)])
    assert await album.face_ids(photo_id) == face_ids
    persons = await album.persons(photo_id)
    assert persons[0] == anna
    assert persons[1] != ben, "a remembered no"
    await album.check()


async def test_processing_again_keeps_ids_and_drops_what_is_gone(album: Album) -> None:
    photo_id, [anna, _] = await album.shoot(1, 2)
    before = await album.face_ids(photo_id)
    await album.again(photo_id, [detection(face(1, 8), 0)])
    assert await album.face_ids(photo_id) == before[:1]
    assert await album.persons(photo_id) == [anna]
    await album.check()
    await album.again(photo_id, [detection(face(1, 8), 0), detection(face(2, 8), 1)])
    assert (await album.persons(photo_id))[0] == anna
    await album.check()


async def test_a_confirmed_face_that_is_not_found_again_stays(album: Album) -> None:
    photo_id, [anna] = await album.shoot(1)
    [face_id] = await album.face_ids(photo_id)
    async with album.db.transaction() as session:
        await service.confirm(session, face_id)
    await album.again(photo_id, [])
    assert await album.face_ids(photo_id) == [face_id]
    assert await album.persons(photo_id) == [anna]
    await album.check()


async def test_racing_founders_make_one_person(album: Album) -> None:
    """Eight writers deliver photos of the same new person at once, round after round."""
    for person in range(100):
        photos = await asyncio.gather(*(album.add() for _ in range(8)))
        callbacks = [
            album.callback(photo, [detection(face(person, view))])
            for view, photo in enumerate(photos)
        ]
        answers = await asyncio.gather(*map(album.deliver, callbacks))
        assert sum(len(a.created_person_ids) for a in answers) == 1
    assert await album.value("SELECT count(*) FROM persons") == 100
    await album.check()


async def test_same_persons_in_any_order_never_deadlock(album: Album) -> None:
    rng = np.random.default_rng(0)
    callbacks = []
    for view in range(120):
        people = rng.permutation(8)[: rng.integers(2, 7)].tolist()
        faces = [detection(face(p, view), place) for place, p in enumerate(people)]
        callbacks.append(album.callback(await album.add(), faces))

    async def writer(mine: list) -> None:
        for callback in mine:
            await album.deliver(callback)

    await asyncio.wait_for(asyncio.gather(*(writer(callbacks[n::8]) for n in range(8))), timeout=60)
    assert await album.value("SELECT count(*) FROM persons") == 8
    await album.check()


async def test_merging_while_faces_arrive(album: Album) -> None:
    for n in range(10):
        _, [anna] = await album.shoot(10 * n, view=1)
        _, [twin] = await album.shoot(10 * n + 1, view=1)
        photos = [await album.add() for _ in range(6)]

        async def joins(photo: tuple, view: int, person: int = 10 * n + 1) -> None:
            await album.deliver(album.callback(photo, [detection(face(person, view))]))

        async def merges(kept: int = anna, gone: int = twin) -> None:
            async with album.db.transaction() as session:
                await service.merge(session, kept, [gone])

        joining = [joins(photo, view) for view, photo in enumerate(photos)]
        await asyncio.gather(*joining[:3], merges(), *joining[3:])
        await album.check()
