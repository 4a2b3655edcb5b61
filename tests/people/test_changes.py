"""Merge, split, rename, confirm, reject, undo."""

from __future__ import annotations

from typing import Any

import pytest
from album import Album, detection, face

from kaleidoscope.kernel.errors import Conflict, Invalid, NotFound
from kaleidoscope.people import service


async def act(album: Album, verb: Any, *arguments: Any) -> Any:
    async with album.db.transaction() as session:
        return await verb(session, *arguments)


async def snapshot(album: Album) -> list[Any]:
    """Everything that undoing has to bring back."""
    return [
        await album.rows("SELECT id, person_id, status, confirmed_by, similarity FROM faces"
                         " ORDER BY id"),
        await album.rows("SELECT id, display_name, merged_into, primary_embedding_id FROM persons"
                         " ORDER BY id"),
        await album.rows("SELECT face_id, person_id FROM face_rejections ORDER BY 1, 2"),
        await album.rows("SELECT * FROM photo_persons ORDER BY 1, 2"),
        await album.rows("SELECT photo_id, person_ids FROM media_assets ORDER BY 1"),
        await album.rows("SELECT person_id, pack, count FROM person_vectors ORDER BY 1, 2"),
    ]  # fmt: skip


async def test_merged_ids_resolve_for_ever(album: Album) -> None:
    (_, [a]), (_, [b]), (_, [c]) = [await album.shoot(n) for n in (1, 2, 3)]
    await act(album, service.rename, b, "Bea")
    await act(album, service.merge, b, [a])
    await act(album, service.merge, c, [b])
    for old in (a, b, c):
        assert await act(album, service.resolve, old) == c
    shown = await act(album, service.person, a)
    assert (shown.person_id, shown.display_name, shown.merged_from) == (c, "Bea", [a, b])
    assert (shown.faces, shown.photos) == (3, 3)
    _, [joined] = await album.shoot(1, view=5)
    assert joined == c
    await album.check()


async def test_undo_restores_exactly(album: Album) -> None:
    photo_id, [a, b] = await album.shoot(1, 2)
    await album.shoot(1, view=4)
    faces = await album.face_ids(photo_id)
    before = [await snapshot(album)]
    events = []
    for verb, *arguments in (
        (service.rename, a, "Anna"),
        (service.confirm, faces[1]),
        (service.reject, faces[0], b),
        (service.merge, b, [a]),
        (service.split, b, [faces[0]]),
        (service.reject, faces[0]),
    ):
        events.append(await act(album, verb, *arguments))
        await album.check()
        before.append(await snapshot(album))
    for _ in events:
        before.pop()
        await act(album, service.undo)
        await album.check()
        now = await snapshot(album)
        assert now[0] == before[-1][0]
        assert [p for p in now[1] if p in before[-1][1]] == before[-1][1]
        assert now[2:] == before[-1][2:], len(before)
    with pytest.raises(NotFound, match="nothing is left"):
        await act(album, service.undo)


async def test_undo_refuses_what_a_later_change_builds_upon(album: Album) -> None:
    (_, [a]), (_, [b]), (_, [c]) = [await album.shoot(n) for n in (1, 2, 3)]
    first = await act(album, service.merge, b, [a])
    second = await act(album, service.merge, c, [b])
    with pytest.raises(Conflict, match=f"event {second.event_id}"):
        await act(album, service.undo, first.event_id)
    await act(album, service.undo, second.event_id)
    with pytest.raises(Conflict, match="undone already"):
        await act(album, service.undo, second.event_id)
    await act(album, service.undo, first.event_id)
    assert [await act(album, service.resolve, p) for p in (a, b, c)] == [a, b, c]
    await album.check()


async def test_a_split_of_whom_the_rest_has_joined_is_not_undone_before_that(album: Album) -> None:
    """Else each of the two would be the other."""
    photo, [a] = await album.shoot(1)
    await album.shoot(1, view=2)
    before = await snapshot(album)
    split = await act(album, service.split, a, await album.face_ids(photo))
    [new] = await album.persons(photo)
    merged = await act(album, service.merge, new, [a])
    with pytest.raises(Conflict, match=f"event {merged.event_id}"):
        await act(album, service.undo, split.event_id)
    await album.check()
    await act(album, service.undo, merged.event_id)
    await act(album, service.undo, split.event_id)
    assert (await snapshot(album))[0] == before[0]
    await album.check()


async def test_a_split_of_whom_the_rest_has_joined_by_way_of_a_third(album: Album) -> None:
    photo, [a] = await album.shoot(1)
    await album.shoot(1, view=2)
    _, [third] = await album.shoot(2)
    split = await act(album, service.split, a, await album.face_ids(photo))
    [new] = await album.persons(photo)
    await act(album, service.merge, third, [a])
    last = await act(album, service.merge, new, [third])
    with pytest.raises(Conflict, match=f"event {last.event_id}"):
        await act(album, service.undo, split.event_id)
    await act(album, service.undo, last.event_id)
    await act(album, service.undo, split.event_id)
    assert await album.persons(photo) == [third]
    await album.check()


async def test_undoing_a_merge_leaves_faces_that_came_later(album: Album) -> None:
    (first, [a]), (_, [b]) = [await album.shoot(n) for n in (1, 2)]
    event = await act(album, service.merge, b, [a])
    later, [joined] = await album.shoot(2, view=3)
    assert joined == b
    await act(album, service.undo, event.event_id)
    assert await album.persons(first) == [a]
    assert await album.persons(later) == [b]
    await album.check()


async def test_a_split_founds_somebody_and_is_remembered(album: Album) -> None:
    photo_id, [a] = await album.shoot(1)
    await album.shoot(1, view=2)
    faces = await album.face_ids(photo_id)
    event = await act(album, service.split, a, faces, "Zoe")
    [zoe] = await album.persons(photo_id)
    assert event.person_id == zoe != a
    assert (await act(album, service.person, zoe)).display_name == "Zoe"
    await album.again(photo_id, [detection(face(1, 9))])
    assert await album.persons(photo_id) == [zoe]
    later, _ = await album.shoot(1, view=12)
    await act(album, service.undo, event.event_id)
    assert await act(album, service.resolve, zoe) == a
    assert await album.persons(photo_id) == [a] == await album.persons(later)
    await album.check()


async def test_a_split_takes_some_faces_of_the_person(album: Album) -> None:
    photo_id, [a, _] = await album.shoot(1, 2)
    own, strange = await album.face_ids(photo_id)
    for faces in ([own], [strange], []):
        with pytest.raises(Invalid):
            await act(album, service.split, a, faces)
    assert await album.value("SELECT count(*) FROM persons") == 2


async def test_confirming_moves_and_rejecting_opens(album: Album) -> None:
    photo_id, [a, b] = await album.shoot(1, 2)
    one, other = await album.face_ids(photo_id)
    await act(album, service.confirm, one, b)
    assert await album.persons(photo_id) == [b, b]
    await act(album, service.reject, other)
    assert await album.persons(photo_id) == [b, None]
    with pytest.raises(Invalid, match="has no person"):
        await act(album, service.confirm, other)
    await album.check()
    assert (await act(album, service.person, a)).faces == 0


async def test_unknown_ids_are_not_found(album: Album) -> None:
    _, [a] = await album.shoot(1)
    for verb, *arguments in (
        (service.merge, a, [5]),
        (service.split, 5, [1]),
        (service.rename, 5, "x"),
        (service.confirm, 5),
        (service.reject, 5),
        (service.undo, 5),
        (service.person, 5),
    ):
        with pytest.raises(NotFound):
            await act(album, verb, *arguments)
    with pytest.raises(Invalid, match="itself"):
        await act(album, service.merge, a, [a])
    with pytest.raises(Invalid, match="255"):
        await act(album, service.rename, a, "x" * 256)


async def test_history_tells_what_happened(album: Album) -> None:
    (_, [a]), (_, [b]) = [await album.shoot(n) for n in (1, 2)]
    await act(album, service.rename, a, "Anna")
    merged = await act(album, service.merge, a, [b])
    await act(album, service.undo)
    told = await act(album, service.history, b)
    assert [(e.kind, e.made_by, e.faces_moved) for e in told] == [
        ("undo", "person", 1),
        ("merge", "person", 1),
    ]
    assert told[1].event_id == merged.event_id and told[1].undone_by == told[0].event_id


async def test_reindex_recomputes_from_the_faces(album: Album) -> None:
    for view in range(3):
        await album.shoot(1, 2, view=view)
    await album.rows("UPDATE person_vectors SET count = 9, sum = mean RETURNING 1")
    with pytest.raises(AssertionError):
        await album.check()
    assert await service.reindex(album.db) == 2
    await album.check()
