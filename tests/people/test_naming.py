"""Names from and for other programs and libraries."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from album import Album, detection, face
from PIL import Image

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Invalid, NotFound
from kaleidoscope.people import service
from kaleidoscope.people.rules import naming as rules
from kaleidoscope.people.rules.naming import Claim
from kaleidoscope.people.service import Heeded, Written

WIDTH, HEIGHT = 400, 200  # as displayed; the album's faces lie at 0, 100, 200 … of 80 pixels
HEAD = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF'
    ' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description'
    ' xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/"'
    ' xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#"><mwg-rs:Regions'
    ' rdf:parseType="Resource"><mwg-rs:RegionList><rdf:Bag>'
)
TAIL = "</rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions></rdf:Description></rdf:RDF></x:xmpmeta>"


def quiet(_: int) -> None:
    """Nobody looks at the progress."""


def sidecar(*names: str | None) -> str:
    """An XMP file that names the album's faces from left to right, a little beside them."""
    items = [
        f'<rdf:li><rdf:Description mwg-rs:Name="{name}" mwg-rs:Type="Face"><mwg-rs:Area'
        f' stArea:x="{(100 * i + 43) / WIDTH}" stArea:y="{47 / HEIGHT}"'
        f' stArea:w="{90 / WIDTH}" stArea:h="{95 / HEIGHT}"/></rdf:Description></rdf:li>'
        for i, name in enumerate(names)
        if name is not None
    ]
    return HEAD + "".join(items) + TAIL


async def shoot(album: Album, folder: Path, name: str, *people: int, view: int = 0) -> Path:
    """A photo of these people as a file, in the ledger, recognised; its path."""
    path = folder / f"{name}.jpg"
    shade = int(hashlib.sha256(name.encode()).hexdigest()[:2], 16)
    Image.new("RGB", (WIDTH, HEIGHT), (shade, 100, view % 250)).save(path)
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    photo = await album.add()
    await album.rows(
        "UPDATE media_assets SET final_path = :path, filename = :name, width = :w, height = :h,"
        " file_hash = :content, media_type = 'photo' WHERE photo_id = :id",
        path=str(path), name=path.name, w=WIDTH, h=HEIGHT, content=content, id=photo[0],
    )  # fmt: skip
    faces = [detection(face(p, view + 100 * i), i) for i, p in enumerate(people)]
    await album.deliver(album.callback((photo[0], str(path), photo[2]), faces))
    return path


async def names_in(album: Album, path: Path) -> list[tuple[str | None, str]]:
    rows = await album.rows(
        "SELECT p.display_name, f.confirmed_by FROM faces f"
        " JOIN media_assets m ON m.photo_id = f.photo_id"
        " LEFT JOIN persons p ON p.id = f.person_id WHERE m.final_path = :path"
        " ORDER BY f.bbox[1]", path=str(path),
    )  # fmt: skip
    return [tuple(row) for row in rows]


async def act(album: Album, verb: Any, *arguments: Any) -> Any:
    async with album.db.transaction() as session:
        return await verb(session, *arguments)


async def take(album: Album, **more: Any) -> Heeded:
    return await service.read_sidecars(album.db, quiet, **more)


async def put(album: Album, **more: Any) -> Written:
    return await service.write_sidecars(album.db, quiet, **more)


def test_a_name_is_who_has_it_or_whose_faces_are_called_so() -> None:
    claims = [Claim(1, "Anna"), Claim(2, "Anna"), Claim(3, "Bea"), Claim(4, "Bea")]
    persons: dict[int, int | None] = {1: 10, 2: 10, 3: 10, 4: 20}
    assert rules.homes(claims, persons, {}, {}) == {"Anna": 10, "Bea": 20}
    assert rules.homes(claims, persons, {30: "Anna"}, {}) == {"Anna": 30, "Bea": 20}
    assert rules.homes(claims, persons, {30: "Bea", 31: "Bea"}, {31: 5})["Bea"] == 31
    assert rules.spelled("  Zoe\u0308  Müller ") == "Zoë Müller"


async def test_names_of_sidecars_are_confirmed(album: Album, tmp_path: Path) -> None:
    one = await shoot(album, tmp_path, "one", 1, 2)
    other = await shoot(album, tmp_path, "other", 1, view=3)
    (tmp_path / "one.jpg.xmp").write_text(sidecar("Anna", "Bea"))
    tried = await take(album, dry_run=True)
    assert (tried.claims, tried.confirmed, tried.named, tried.founded) == (2, 2, 2, 0)
    assert tried.events == [] and await names_in(album, one) == [(None, "machine")] * 2
    done = await take(album)
    assert (done.photos, done.claims, done.confirmed, done.moved, done.named) == (1, 2, 2, 0, 2)
    assert await names_in(album, one) == [("Anna", "person"), ("Bea", "person")]
    assert await names_in(album, other) == [("Anna", "machine")], "her other faces have her name"
    again = await take(album)
    assert (again.confirmed, again.named, again.founded, again.events) == (0, 0, 0, [])
    await album.check()
    [event] = done.events
    await act(album, service.undo, event)
    assert await names_in(album, one) == [(None, "machine")] * 2
    await album.check()


async def test_a_mixed_person_is_sorted_out(album: Album, tmp_path: Path) -> None:
    """Whom the machine took for one is Anna by most of the names; the other is founded."""
    paths = [await shoot(album, tmp_path, f"p{n}", 1, view=n) for n in range(3)]
    for path, name in zip(paths, ("Anna", "Bea", "Anna"), strict=True):
        path.with_suffix(".xmp").write_text(sidecar(name))
    done = await take(album)
    assert (done.named, done.founded, done.moved, done.confirmed) == (1, 1, 1, 3)
    assert [(await names_in(album, p))[0][0] for p in paths] == ["Anna", "Bea", "Anna"]
    await album.check()


async def test_what_was_said_here_is_never_overruled(album: Album, tmp_path: Path) -> None:
    path = await shoot(album, tmp_path, "one", 1, 2)
    rows = await album.rows("SELECT id, person_id FROM faces ORDER BY bbox[1]")
    (first, anna), (second, other) = rows
    await act(album, service.rename, anna, "Anna")
    await act(album, service.confirm, first)
    _, [vera] = await album.shoot(7)
    await act(album, service.rename, vera, "Vera")
    await act(album, service.reject, second, vera)
    persons = await album.value("SELECT count(*) FROM persons")
    (tmp_path / "one.jpg.xmp").write_text(sidecar("Zoe", "Vera"))
    for _ in range(2):
        done = await take(album)
        told = {(c.face_id, c.claimed, c.here) for c in done.conflicts}
        assert told == {(first, "Zoe", "Anna"), (second, "Vera", "not Vera")}
        assert done.events == []
    assert await names_in(album, path) == [("Anna", "person"), (None, "machine")]
    assert await album.value("SELECT count(*) FROM persons") == persons, "nobody is founded for it"
    assert other is not None
    await album.check()


async def test_places_without_a_face_and_bad_files_are_told(album: Album, tmp_path: Path) -> None:
    await shoot(album, tmp_path, "one", 1)
    await shoot(album, tmp_path, "two", 2)
    (tmp_path / "gone.jpg").write_text("")
    gone = await shoot(album, tmp_path, "gone", 3)
    gone.unlink()
    (tmp_path / "one.jpg.xmp").write_text(sidecar("Anna", None, "Nobody"))
    (tmp_path / "two.jpg.xmp").write_text("<x")
    done = await take(album)
    assert (done.confirmed, done.elsewhere) == (1, 1)
    assert len(done.errors) == 2
    assert any("two.jpg.xmp" in error for error in done.errors)
    assert any("gone.jpg" in error for error in done.errors)


async def test_names_are_written_and_come_back(album: Album, tmp_path: Path) -> None:
    one = await shoot(album, tmp_path, "one", 1, 2)
    await shoot(album, tmp_path, "two", 1, view=3)
    content = one.read_bytes()
    rows = await album.rows("SELECT id, person_id FROM faces ORDER BY id")
    await act(album, service.rename, rows[0].person_id, "Anna & <Co>")
    assert (await put(album)).files == 0, "nobody has confirmed a face"
    await act(album, service.confirm, rows[0].id)
    tried = await put(album, dry_run=True)
    assert (tried.photos, tried.files, tried.names) == (1, 1, 1)
    assert not (tmp_path / "one.jpg.xmp").exists()
    assert (await put(album)).names == 1
    assert not (tmp_path / "two.jpg.xmp").exists()
    assert (await put(album, everybody=True)).files == 1
    assert (await put(album, everybody=True)).files == 0, "nothing is new"
    assert one.read_bytes() == content
    await act(album, service.rename, rows[0].person_id, "Anne")
    conflicting = await put(album)
    assert conflicting.conflicts == [(str(tmp_path / "one.jpg.xmp"), "Anne", "Anna & <Co>")]
    assert (await put(album, replace=True)).names == 1

    await act(album, service.undo)  # of the name
    await act(album, service.undo)  # of the confirmation
    await act(album, service.rename, rows[0].person_id, None)
    await take(album)
    assert await names_in(album, one) == [("Anne", "person"), (None, "machine")]


@pytest.fixture
async def elsewhere(album: Album, tmp_path: Path) -> Path:
    """A file of names from a library of which nothing else is left; photos 0 and 1 are there."""
    await shoot(album, tmp_path, "p0", 1, 2)
    await shoot(album, tmp_path, "p1", 1, view=3)
    rows = await album.rows("SELECT id, person_id FROM faces ORDER BY id")
    await act(album, service.rename, rows[0].person_id, "Anna")
    await act(album, service.rename, rows[1].person_id, "Bea")
    await act(album, service.confirm, rows[0].id)
    await act(album, service.set_birth_date, rows[0].person_id, date(1999, 12, 31))
    _, [old] = await album.shoot(40)
    await act(album, service.merge, rows[1].person_id, [old])
    file = tmp_path / "names.jsonl"
    assert await service.export_names(album.db, file) == 2
    await album.rows("TRUNCATE media_assets, persons CASCADE")
    return file


async def persons(album: Album) -> Sequence[Any]:
    return await album.rows(
        "SELECT display_name, birth_date FROM persons WHERE display_name IS NOT NULL ORDER BY 1"
    )


async def test_an_exported_person(elsewhere: Path) -> None:
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o600
    anna, bea = [json.loads(line) for line in elsewhere.read_text().splitlines()]
    assert (anna["name"], anna["birth_date"], len(anna["faces"])) == ("Anna", "1999-12-31", 2)
    assert (bea["name"], len(bea["aliases"]), bea["pack"]) == ("Bea", 1, "builtin")
    first = anna["faces"][0]
    assert (first["size"], first["confirmed"], first["bbox"]) == (
        [WIDTH, HEIGHT], True, [0.0, 10.0, 80.0, 90.0],
    )  # fmt: skip
    assert len(first["sha256"]) == 64 and first["embedding"]


async def test_a_library_made_anew_gets_its_names_back(
    album: Album, elsewhere: Path, tmp_path: Path
) -> None:
    """The photos lie elsewhere, the ids are others, and so are the vectors: another pack."""
    folder = tmp_path / "anew"
    folder.mkdir()
    await album.shoot(90)
    two = await shoot(album, folder, "p1", 21, view=3)
    one = await shoot(album, folder, "p0", 21, 22)
    tried = await service.import_names(album.db, elsewhere, dry_run=True)
    assert (tried.confirmed, tried.named, tried.births) == (1, 2, 0)
    assert await persons(album) == []
    done = await service.import_names(album.db, elsewhere)
    assert (done.confirmed, done.named, done.founded, done.births) == (1, 2, 0, 1)
    assert done.elsewhere == 1 and done.errors == [], "the merged one's photo has no content here"
    assert await names_in(album, one) == [("Anna", "person"), ("Bea", "machine")]
    assert await names_in(album, two) == [("Anna", "machine")]
    named = [("Anna", date(1999, 12, 31)), ("Bea", None)]
    assert [tuple(row) for row in await persons(album)] == named
    again = await service.import_names(album.db, elsewhere)
    assert (again.confirmed, again.named, again.births, again.events) == (0, 0, 0, [])
    await album.check()


async def test_other_photos_of_a_person_are_known_by_vectors(
    album: Album, elsewhere: Path, tmp_path: Path
) -> None:
    await shoot(album, tmp_path, "new", 1, view=77)
    done = await service.import_names(album.db, elsewhere)
    assert (done.named, done.confirmed) == (1, 0)
    assert [row.display_name for row in await persons(album)] == ["Anna"]


async def test_what_was_said_here_stands_against_a_file(
    album: Album, elsewhere: Path, tmp_path: Path
) -> None:
    path = await shoot(album, tmp_path, "p0", 1, 2)
    [first, _] = await album.rows("SELECT id, person_id FROM faces ORDER BY bbox[1]")
    await act(album, service.rename, first.person_id, "Anne")
    await act(album, service.confirm, first.id)
    done = await service.import_names(album.db, elsewhere)
    assert [(c.face_id, c.claimed, c.here) for c in done.conflicts] == [(first.id, "Anna", "Anne")]
    assert [name for name, _ in await names_in(album, path)] == ["Anne", "Bea"]


async def test_bad_lines_are_told_and_the_rest_goes_on(
    album: Album, elsewhere: Path, tmp_path: Path
) -> None:
    await shoot(album, tmp_path, "p0", 1, 2)
    with elsewhere.open("a") as file:
        file.write('{"name": 5}\nnonsense\n\n')
    done = await service.import_names(album.db, elsewhere)
    assert len(done.errors) == 2 and "line 3" in done.errors[0] and "line 4" in done.errors[1]
    assert done.named == 2
    with pytest.raises(Invalid, match="No such file"):
        await service.import_names(album.db, tmp_path / "none")


async def test_without_embeddings_and_everybody(album: Album, tmp_path: Path) -> None:
    await shoot(album, tmp_path, "p0", 1, 2)
    file = tmp_path / "names.jsonl"
    assert await service.export_names(album.db, file) == 0
    assert await service.export_names(album.db, file, everybody=True, vectors=False) == 2
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(f["embedding"] is None for line in lines for f in line["faces"])


async def test_birth_dates(album: Album, db: Database) -> None:
    _, [anna, other] = await album.shoot(1, 2)
    await act(album, service.set_birth_date, other, date(2001, 2, 3))
    merged = await act(album, service.merge, anna, [other])
    assert (await act(album, service.person, anna)).birth_date == date(2001, 2, 3)
    await act(album, service.set_birth_date, anna, date(2001, 2, 4))
    assert (await act(album, service.person, other)).birth_date == date(2001, 2, 4)
    await act(album, service.undo, merged.event_id)
    assert (await act(album, service.person, other)).birth_date == date(2001, 2, 3)
    await act(album, service.set_birth_date, anna, None)
    assert (await act(album, service.person, anna)).birth_date is None
    with pytest.raises(Invalid, match="yet"):
        await act(album, service.set_birth_date, anna, date(9000, 1, 1))
    with pytest.raises(NotFound):
        await act(album, service.set_birth_date, 5, None)
