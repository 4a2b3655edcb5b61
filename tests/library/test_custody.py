"""Received files are filed; what cannot be is left where it is, with a cause."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from custodian import Custodian, digest, files, jpeg
from scans import Register, Write, scan

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.paths import to_text
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.library.outside import custody as disk
from kaleidoscope.library.queries import custody as rows
from kaleidoscope.library.service import planning


async def test_a_photo_is_filed_by_its_day(custodian: Custodian) -> None:
    path = custodian.drop("holiday/IMG_1.jpg", jpeg(1))
    (done,) = await custodian.sweep()
    assert (done.what, done.path) == ("filed", to_text(path))
    target = custodian.originals / "2021" / "2021-03-04" / "IMG_1.jpg"
    assert done.target == to_text(target) and target.read_bytes() == jpeg(1)
    assert not path.exists()
    (photo,) = (await custodian.ledger()).values()
    assert (photo.original_name, photo.original_path) == ("IMG_1.jpg", to_text(path))
    assert (photo.file_hash, photo.size_bytes) == (digest(target), len(jpeg(1)))
    assert str(photo.captured_at) == "2021-03-04 05:06:07"
    assert photo.captured_at_source == "exif:DateTimeOriginal"
    assert photo.mime_type == "image/jpeg" and photo.modified_at.timestamp() == 1_700_000_000.5
    assert photo.ingested_at is not None and photo.status == "READY"
    await custodian.check([jpeg(1)])


async def test_names_that_are_taken_get_a_number(custodian: Custodian) -> None:
    """Also those of one batch, whichever folder of the inbox they come from."""
    for number in range(5):
        custodian.drop(f"{number}/IMG_1.jpg", jpeg(number))
    await custodian.sweep()
    custodian.drop("IMG_1.jpg", jpeg(7))
    await custodian.sweep()
    names = ["IMG_1.jpg", *(f"IMG_1_{n}.jpg" for n in range(1, 6))]
    assert [p.name for p in files(custodian.originals)] == names
    await custodian.check([*map(jpeg, range(5)), jpeg(7)])


async def test_a_file_of_nobody_is_never_overwritten(custodian: Custodian) -> None:
    foreign = custodian.originals / "2021" / "2021-03-04" / "IMG_1.jpg"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"not in the ledger")
    custodian.drop("IMG_1.jpg", jpeg(1))
    await custodian.sweep()
    assert foreign.read_bytes() == b"not in the ledger"
    assert foreign.with_name("IMG_1_1.jpg").read_bytes() == jpeg(1)


async def test_what_a_restored_database_does_not_know_is_not_filed_twice(
    custodian: Custodian,
) -> None:
    """Of yesterday, and the photos are received again: they lie where they would be filed."""
    for _ in range(2):
        custodian.drop("IMG_1.jpg", jpeg(1))
        custodian.drop("IMG_1.jpg.xmp", b"<x:xmpmeta/>")
        custodian.drop("2/IMG_1.jpg", jpeg(2))
        await custodian.rows("DELETE FROM custody_moves RETURNING 1")
        await custodian.rows("DELETE FROM media_assets RETURNING 1")
        await custodian.rows("DELETE FROM bus_outbox RETURNING 1")
        assert {o.what for o in await custodian.sweep()} == {"filed", "sidecar"}
        assert files(custodian.inbox) == []
        names = [p.name for p in files(custodian.originals)]
        assert names == ["IMG_1.jpg", "IMG_1_1.jpg", "IMG_1_1.jpg.xmp"]
    (lost,) = await custodian.rows("SELECT count(*) AS n FROM custody_moves WHERE photo_id IS NULL")
    assert lost.n == 0 and len(await custodian.ledger()) == 2


async def test_duplicates_are_set_aside(custodian: Custodian) -> None:
    custodian.drop("a.jpg", jpeg(1))
    custodian.drop("b.jpg", jpeg(1))
    await custodian.sweep()
    again = custodian.drop("c/d.jpg", jpeg(1))
    (done,) = await custodian.sweep()
    assert (done.what, done.target) == (
        "duplicate",
        to_text(custodian.duplicates / "c" / "d.jpg"),
    )
    assert not again.exists()
    assert [p.read_bytes() for p in files(custodian.duplicates)] == [jpeg(1)] * 2
    await custodian.check([jpeg(1)])
    (first,) = (await custodian.ledger()).values()
    rows = await custodian.rows("SELECT * FROM custody_moves WHERE kind = 'duplicate'")
    assert [row.photo_id for row in rows] == [first.photo_id] * 2
    assert rows[-1].source_path == to_text(again)


async def test_duplicates_are_removed_where_that_is_set(
    custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_LIBRARY_DUPLICATES", "remove")
    load.cache_clear()
    custodian.drop("a.jpg", jpeg(1))
    custodian.drop("b.jpg", jpeg(1))
    custodian.drop("b.jpg.xmp", b"<x:xmpmeta/>")
    done = {o.path: o for o in await custodian.sweep()}
    assert done[to_text(custodian.inbox / "b.jpg")].what == "duplicate"
    assert files(custodian.inbox) == []
    assert [p.name for p in files(custodian.duplicates)] == ["b.jpg.xmp"]
    await custodian.check([jpeg(1)])


async def test_nothing_is_removed_when_the_first_copy_has_rotted(
    custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALEIDOSCOPE_LIBRARY_DUPLICATES", "remove")
    load.cache_clear()
    custodian.drop("a.jpg", jpeg(1))
    await custodian.sweep()
    (original,) = files(custodian.originals)
    rotten = bytearray(jpeg(1))
    rotten[30] ^= 1
    original.write_bytes(rotten)
    copy = custodian.drop("b.jpg", jpeg(1))
    (done,) = await custodian.sweep()
    assert copy.read_bytes() == jpeg(1)
    assert done.cause is not None and str(original) in done.cause


async def test_a_first_copy_that_lies_elsewhere_is_hashed_first(
    custodian: Custodian, write: Write, register: Register
) -> None:
    """Indexed in place, and not hashed yet: looks alike, is the same."""
    sample = library.sample_hash(jpeg(1), b"", len(jpeg(1)))
    indexed = replace(write("elsewhere/x.jpg", jpeg(1)), sample_hash=sample)
    (known,) = await register([indexed])
    custodian.drop("y.jpg", jpeg(1))
    (done,) = await custodian.sweep()
    assert (done.what, done.photo_id) == ("duplicate", known.photo_id)
    assert files(custodian.originals) == []


async def test_the_only_copy_is_filed_when_the_first_has_gone(custodian: Custodian) -> None:
    """What is known of it stays: its row lies elsewhere now."""
    custodian.drop("a.jpg", jpeg(1))
    await custodian.sweep()
    (before,) = (await custodian.ledger()).values()
    await custodian.rows("UPDATE media_assets SET status = 'PROCESSED' RETURNING 1")
    files(custodian.originals)[0].unlink()
    custodian.drop("b.jpg", jpeg(1), time=1_600_000_000.0)
    (done,) = await custodian.sweep()
    assert (done.what, done.photo_id) == ("filed", before.photo_id)
    (after,) = (await custodian.ledger()).values()
    assert after.path == to_text(custodian.originals / "2021" / "2021-03-04" / "b.jpg")
    assert after.modified_at.timestamp() == 1_600_000_000.0
    await custodian.check([jpeg(1)])


@pytest.mark.parametrize("status", ["READY", "FAILED"])
async def test_what_is_found_again_is_recognised_where_it_lies(
    custodian: Custodian, status: str
) -> None:
    """Its message told of the old place, and its retries may be spent."""
    custodian.drop("a.jpg", jpeg(1))
    await custodian.sweep()
    await custodian.rows("DELETE FROM bus_outbox RETURNING 1")
    await custodian.rows(
        f"UPDATE media_assets SET status = '{status}', missing_since = now() RETURNING 1"
    )
    files(custodian.originals)[0].unlink()
    custodian.drop("b.jpg", jpeg(1))
    await custodian.sweep()
    (photo,) = (await custodian.ledger()).values()
    assert (photo.status, photo.missing_since) == ("READY", None)
    (asked,) = await custodian.rows("SELECT payload FROM bus_outbox")
    assert asked.payload["path"] == photo.path
    assert asked.payload["attempt_id"] == str(photo.attempt_id)


async def test_companions_travel_together(custodian: Custodian) -> None:
    """RAW, video, edit and sidecars: in the photo's folder, with its number."""
    taken = custodian.originals / "2021" / "2021-03-04" / "IMG_1234_1-edited.jpg"
    taken.parent.mkdir(parents=True)
    taken.with_name("IMG_1234.MOV").write_bytes(b"somebody else's")
    contents = {
        "IMG_1234.HEIC": b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + b"1" * 50,
        "IMG_1234.MOV": b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + b"2" * 50,
        "IMG_1234.CR2": b"II*\0\x10\0\0\0CR\2\0" + b"3" * 50,
        "IMG_E1234.JPG": jpeg(4, None),
        "IMG_1234-edited.jpg": jpeg(5),
        "IMG_1234.AAE": b"<plist/>",
        "IMG_1234.HEIC.xmp": b"<x:xmpmeta/>",
        "IMG_1234.jpg.json": b"{}",
    }
    for name, content in contents.items():
        custodian.drop("phone/" + name, content, 1_614_834_367)
    await custodian.sweep()
    assert files(custodian.inbox) == []
    names = {p.name for p in files(taken.parent)} - {"IMG_1234.MOV"}
    assert names == {
        "IMG_1234_1.HEIC",
        "IMG_1234_1.MOV",
        "IMG_1234_1.CR2",
        "IMG_E1234_1.JPG",
        "IMG_1234_1-edited.jpg",
        "IMG_1234_1.AAE",
        "IMG_1234_1.HEIC.xmp",
        "IMG_1234_1.jpg.json",
    }
    assert len(await custodian.ledger()) == 5
    groups = await custodian.rows("SELECT DISTINCT group_id FROM custody_moves")
    assert len(groups) == 1
    sidecars = await custodian.rows("SELECT photo_id FROM custody_moves WHERE kind = 'sidecar'")
    assert all(row.photo_id for row in sidecars)


async def test_a_late_sidecar_finds_its_photo(custodian: Custodian) -> None:
    custodian.drop("IMG_1.jpg", jpeg(1))
    await custodian.sweep()
    custodian.drop("IMG_1.jpg", jpeg(2))
    await custodian.sweep()
    custodian.drop("IMG_1.jpg.xmp", b"<x:xmpmeta/>")
    (done,) = await custodian.sweep()
    assert done.what == "sidecar"
    assert [p.name for p in files(custodian.originals)] == [
        "IMG_1.jpg",
        "IMG_1_1.jpg",
        "IMG_1_1.jpg.xmp",
    ]


async def test_what_is_no_photo_is_set_aside_with_a_cause(custodian: Custodian) -> None:
    custodian.drop("a/notes.txt", b"not a photo")
    custodian.drop("zero.jpg", b"")
    custodian.drop("zero2.jpg", b"")
    custodian.drop("lonely.xmp", b"<x:xmpmeta/>")
    custodian.drop("photo_without_extension", jpeg(1))
    done = {Path(o.path).name: o for o in await custodian.sweep()}
    assert {name: o.what for name, o in done.items()} == {
        "notes.txt": "set-aside",
        "zero.jpg": "set-aside",
        "zero2.jpg": "set-aside",
        "lonely.xmp": "set-aside",
        "photo_without_extension": "filed",
    }
    assert all(o.cause for o in done.values() if o.what == "set-aside")
    assert (custodian.set_aside / "a" / "notes.txt").read_bytes() == b"not a photo"
    assert files(custodian.inbox) == []


async def test_any_bytes_in_a_name(custodian: Custodian) -> None:
    odd = [
        b"latin1 caf\xe9.jpg",
        b"new\nline.jpg",
        b"-rf.jpg",
        b"looks\\xe9escaped.jpg",
        b"trailing.jpg ",
        b"a" * 251 + b".jpg",
    ]
    for number, name in enumerate(odd):
        custodian.drop(name, jpeg(number))
    custodian.drop(b"again/" + odd[-1], jpeg(50))
    await custodian.sweep()
    lying = {os.fsencode(p.name) for p in files(custodian.originals)}
    assert lying == {*odd, b"a" * 249 + b"_1.jpg"}
    await custodian.check([*map(jpeg, range(len(odd))), jpeg(50)])


async def test_a_hard_link_is_copied(custodian: Custodian) -> None:
    """Whoever writes through its other name must not alter the original."""
    outside = custodian.inbox.parent / "outside.jpg"
    outside.write_bytes(jpeg(1))
    os.link(outside, custodian.inbox / "a.jpg")
    await custodian.sweep()
    outside.write_bytes(b"altered")
    await custodian.check([jpeg(1)])


async def test_rights_to_run_are_taken_away(custodian: Custodian) -> None:
    custodian.drop("a.jpg", jpeg(1)).chmod(0o4755)
    custodian.drop("b.jpg", jpeg(2)).chmod(0o444)
    await custodian.sweep()
    modes = {p.name: p.stat().st_mode & 0o7777 for p in files(custodian.originals)}
    assert modes == {"a.jpg": 0o644, "b.jpg": 0o444}


async def test_a_file_that_is_being_written_waits(custodian: Custodian) -> None:
    path = custodian.drop("a.jpg", jpeg(1))
    custodian.drop("a.jpg.xmp", b"<x:xmpmeta/>")
    with path.open("ab"):
        done = await custodian.sweep()
    assert {(o.what, o.kind) for o in done} == {("left", "busy")}
    assert len(files(custodian.inbox)) == 2
    await custodian.sweep()
    assert sorted(p.name for p in files(custodian.originals)) == ["a.jpg", "a.jpg.xmp"]


async def test_facts_that_the_database_refuses_do_not_stop_the_others(
    custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(task: dict[str, object]) -> dict[str, object]:
        wrong = str(task["path"]).endswith("odd.jpg")
        return {"width": 10, "candidates": [], "frame_rate": 1e308 if wrong else 1}

    monkeypatch.setattr("kaleidoscope.library.outside.metadata.read_file", odd)
    monkeypatch.setattr(
        "kaleidoscope.library.service.planning._not_negative", lambda v: "NaNx" if v == 1e308 else v
    )
    custodian.drop("odd.jpg", jpeg(1))
    custodian.drop("even.jpg", jpeg(2))
    done = await custodian.sweep()
    assert [o.what for o in done] == ["filed", "filed"]
    await custodian.check([jpeg(1), jpeg(2)])


async def test_a_fact_that_an_index_cannot_hold_does_not_stop_the_others(
    custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL calls it an operational error, as it does its own absence."""
    endless = "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(6000))

    def odd(task: dict[str, object]) -> dict[str, object]:
        wrong = str(task["path"]).endswith("odd.jpg")
        return {"camera_make": "x", "camera_model": endless if wrong else "y"}

    monkeypatch.setattr("kaleidoscope.library.outside.metadata.read_file", odd)
    custodian.drop("odd.jpg", jpeg(1))
    custodian.drop("even.jpg", jpeg(2))
    done = await custodian.sweep()
    assert [o.what for o in done] == ["filed", "filed"]
    await custodian.check([jpeg(1), jpeg(2)])


async def test_filed_again_by_a_corrected_date(custodian: Custodian, db: Database) -> None:
    custodian.drop("IMG_1.jpg", jpeg(1))
    custodian.drop("IMG_1.MOV", b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + b"2" * 50)
    custodian.drop("IMG_1.xmp", b"<x:xmpmeta/>")
    await custodian.sweep()
    photo = (await custodian.ledger())["2021/2021-03-04/IMG_1.jpg"]
    await custodian.rows(
        "UPDATE media_assets SET captured_at = '2022-05-06 07:08:09' WHERE photo_id = :id"
        " RETURNING 1",
        id=photo.photo_id,
    )
    done = await library.refile(db, [photo.photo_id])
    assert sorted(o.what for o in done) == ["refiled", "refiled", "sidecar"]
    names = [str(p.relative_to(custodian.originals)) for p in files(custodian.originals)]
    assert names == [f"2022/2022-05-06/IMG_1.{e}" for e in ("MOV", "jpg", "xmp")]
    assert set(await custodian.ledger()) == set(names[:2])
    assert not (custodian.originals / "2021").exists()
    assert await library.refile(db, [photo.photo_id]) == []
    await custodian.rows(
        "UPDATE media_assets SET captured_at = '2023-05-06' WHERE photo_id = :id RETURNING 1",
        id=photo.photo_id,
    )
    await library.refile(db, [photo.photo_id])
    assert len(files(custodian.originals / "2023" / "2023-05-06")) == 3


@pytest.mark.parametrize("duplicates", ["set-aside", "remove"])
@pytest.mark.parametrize("hashed", [False, True])
async def test_an_inbox_that_was_indexed_in_place(
    custodian: Custodian,
    register: Register,
    monkeypatch: pytest.MonkeyPatch,
    duplicates: str,
    hashed: bool,
) -> None:
    """Its files are no duplicates of themselves: filed, they keep what is known of them."""
    monkeypatch.setenv("KALEIDOSCOPE_LIBRARY_DUPLICATES", duplicates)
    load.cache_clear()
    path = custodian.drop("a.jpg", jpeg(1))
    sample = library.sample_hash(jpeg(1), b"", len(jpeg(1)))
    (known,) = await register([replace(scan(path), sample_hash=sample)])
    if hashed:
        await library.hash_pending(custodian.db)
    await custodian.rows("DELETE FROM bus_outbox RETURNING 1")
    (done,) = await custodian.sweep()
    assert (done.what, done.photo_id) == ("filed", known.photo_id)
    assert not path.exists()
    (photo,) = (await custodian.ledger()).values()
    assert Path(photo.final_path).read_bytes() == jpeg(1)
    assert photo.photo_id == known.photo_id


async def test_a_duplicate_that_may_be_its_first_copy_is_not_removed(
    custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen through another mount, a file is not its own second copy."""
    order = disk.Release(
        1,
        to_text(custodian.drop("a.jpg", jpeg(1))),
        disk.Identity(0, 0, 0, 0),
        digest(custodian.inbox / "a.jpg"),
        None,
        None,
        to_text(custodian.inbox / "a.jpg"),
    )
    there = disk.look(order.source)
    assert there is not None
    (answer,) = disk.release([replace(order, identity=there)])
    assert answer is not None and "this very file" in answer.cause
    assert (custodian.inbox / "a.jpg").exists()


async def test_corrected_dates_are_filed_by_the_clock(custodian: Custodian, db: Database) -> None:
    custodian.drop("IMG_1.jpg", jpeg(1))
    await custodian.sweep()
    (photo,) = (await custodian.ledger()).values()
    async with db.transaction() as session:
        await library.set_date(session, photo.photo_id, datetime(2019, 8, 7, 6, 5))
    assert await library.file_corrected(db) == {"filed": 1}
    assert list(await custodian.ledger()) == ["2019/2019-08-07/IMG_1.jpg"]
    async with db.transaction() as session:
        await library.undo_correction(session)
    assert await library.file_corrected(db) == {"filed": 1}
    assert list(await custodian.ledger()) == ["2021/2021-03-04/IMG_1.jpg"]
    assert await library.file_corrected(db) == {}
    await custodian.check([jpeg(1)])


async def test_candidates_and_confidence_are_kept(custodian: Custodian) -> None:
    custodian.drop("IMG_20210304_050607.jpg", jpeg(1))
    await custodian.sweep()
    (photo,) = (await custodian.ledger()).values()
    assert photo.captured_at_confidence == "high"
    told = await custodian.rows("SELECT source FROM capture_candidates ORDER BY source")
    assert [row.source for row in told] == ["exif:DateTimeOriginal", "mtime", "name"]


async def test_what_is_found_again_has_the_time_of_the_file_that_was_found(
    custodian: Custodian,
) -> None:
    """Every pass tells by it whether a file is still what was hashed."""
    custodian.drop("a.jpg", jpeg(1))
    await custodian.sweep()
    files(custodian.originals)[0].unlink()
    custodian.drop("b.jpg", jpeg(1), time=1_600_000_000.0)
    await custodian.sweep()
    (photo,) = (await custodian.ledger()).values()
    assert photo.modified_at == library.modified_at(Path(photo.path).stat())


async def test_in_a_restored_library_no_move_goes_on_in_the_old_folder(
    custodian: Custodian, data_dir: Path
) -> None:
    """The other installation may be alive, and its inbox is not ours."""
    custodian.drop("a.jpg", jpeg(1))
    custodian.drop("a.jpg.xmp", b"<x:xmpmeta/>")
    await custodian.sweep()
    theirs = custodian.drop("b.jpg", jpeg(2))
    (parcel,) = await library.read(custodian.work, library.parcels(custodian.candidates()))
    plans, _ = await planning.plan(custodian.db, [parcel], to_text(custodian.inbox))
    old, new = to_text(data_dir), to_text(data_dir) + " restored"
    async with custodian.db.transaction() as session:
        await rows.add(session, plans)
        await library.relocate(session, old, new)
    (left,) = await library.resume(custodian.db)
    assert (left.what, left.kind) == ("left", "vanished")
    assert theirs.read_bytes() == jpeg(2) and len(files(custodian.originals)) == 2
    (photo,) = await custodian.rows("SELECT * FROM media_assets")
    assert photo.final_path.startswith(new + "/") and photo.original_path.startswith(old + "/")
    (sidecar,) = await custodian.rows("SELECT final_path FROM kept_files")
    assert sidecar.final_path == photo.final_path + ".xmp"
