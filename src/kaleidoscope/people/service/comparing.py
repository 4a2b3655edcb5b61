"""Two packs on the same confirmed faces: what another pack would make of this library.

The photos of some confirmed faces are looked at anew with the pack in use and with the other one,
in child processes of our own. What they see is compared in memory and forgotten: no face, vector
or person of the library is touched.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from sqlalchemy import Row

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Invalid, KaleidoscopeError, TooBusy, Unavailable
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.library.schemas import Photo
from kaleidoscope.ml.catalog import Pack
from kaleidoscope.ml.errors import ModelError
from kaleidoscope.ml.pool import Pool, WorkFailed, cores, photo_pool
from kaleidoscope.ml.settings import MlSettings
from kaleidoscope.people.queries import quality as words
from kaleidoscope.people.rules import comparing as rules
from kaleidoscope.people.rules.calibration import Integers
from kaleidoscope.people.rules.comparing import Difference, Flags, Judged, Verdict
from kaleidoscope.people.rules.matching import Vectors, same_places
from kaleidoscope.people.rules.quality import Share, Threshold
from kaleidoscope.people.service import matching
from kaleidoscope.people.service.quality import FEWEST as ENOUGH

SAMPLE = 300  # faces that are compared by, unless more are asked for
FEWEST = 50  # confirmed faces of people who have several: fewer tell nothing
LOOK = "kaleidoscope.ml.work:analyse"  # what the child processes run

Progress = Callable[[str, int, int], None]
"""Told the pack's name, how many photos it has looked at, and of how many."""

_one_at_a_time = asyncio.Lock()


@dataclass(frozen=True)
class Side:
    """A pack on the faces compared by. `found`: those that it sees a face in; `precision` and
    `recall` from the similarity `even` on, at which a face is as likely as not of the person in a
    library of this size; `advised`: the lowest threshold that
    surely gives the precision wanted; `others`: faces it sees besides, in the same photos;
    `milliseconds` of one process a photo; `megabytes` of vectors for the faces of the library.
    """

    pack: str
    licence: str
    non_commercial: bool
    dimension: int
    found: Share | None
    even: float
    precision: Share | None
    recall: Share | None
    advised: Threshold | None
    others: int
    milliseconds: float
    megabytes: float


@dataclass(frozen=True)
class Comparison:
    """Two packs on the same faces. `right`: how many more faces the other one gives to their
    person; `wrong`: to somebody else. `better` says which pack the intervals favour (`open`: they
    favour none; `mixed`: one finds more and confuses more). `photos` of the library would be looked
    at anew in about `migrate_seconds`.
    """

    faces: int
    persons: int
    photos_read: int
    photos_unread: int
    wanted: float
    this: Side
    other: Side
    right: Difference | None
    wrong: Difference | None
    better: Verdict
    verdict: str
    photos: int
    migrate_seconds: float
    remarks: list[str]


async def compare(
    db: Database,
    name: str,
    *,
    sample: int = SAMPLE,
    wanted: float = 0.99,
    progress: Progress = lambda *_: None,
) -> Comparison:
    """Compare the pack in use with another one, on so many confirmed faces at most.

    Raises `Invalid` where too few faces are confirmed, a
    `ModelError` for a pack that is not here, `TooBusy` while another comparison is under way.
    """
    if not 0 < wanted < 1:
        raise Invalid(f"a wanted precision lies between 0 and 1, {wanted} does not", field="wanted")
    from kaleidoscope.ml import packs  # networks: slow to import

    this = matching.find_pack(None)
    if this.name == name:
        raise Invalid(f"{name} is the pack in use", hint="`kaleidoscope models list` has others")
    other = await asyncio.to_thread(packs.find_whole, name)
    if _one_at_a_time.locked():
        raise TooBusy("two packs are being compared already", retry_after=60)
    async with _one_at_a_time:
        return await _compare(db, this, other, sample, wanted, progress)


async def _compare(
    db: Database,
    this: Pack,
    other: Pack,
    sample: int,
    wanted: float,
    progress: Progress,
) -> Comparison:
    async with db.transaction() as session:
        confirmed = await words.confirmed_faces(session)
        _enough([row.person_id for row in confirmed], sample)
        chosen = rules.sample([row.person_id for row in confirmed], sample)
        rows = [confirmed[i] for i in chosen]
        photos = await library.get_many(session, sorted({row.photo_id for row in rows}))
        size = await matching.size(session, this.name)
        faces = await words.count_faces(session)
        looked = await library.looked_at_with(session, f"{other.name}/")
    seen = await look_at(photos, [this, other], progress)
    read = seen[this.name].keys() & seen[other.name].keys()
    rows = [row for row in rows if row.photo_id in read]
    one, two = [
        await asyncio.to_thread(_judge, pack, rows, seen[pack.name], size.regulars, wanted)
        for pack in (this, other)
    ]
    who = _persons(rows)
    right, wrong = rules.differences(one, two, who)
    better = rules.verdict(right, wrong)
    sides = [
        _side(pack, made, [seen[pack.name][photo] for photo in read], faces)
        for pack, made in ((this, one), (other, two))
    ]
    anew = looked.done + looked.left + looked.waiting
    unread = len(photos) - len(read)
    return Comparison(
        faces=len(rows),
        persons=len(np.unique(who)),
        photos_read=len(read),
        photos_unread=unread,
        wanted=wanted,
        this=sides[0],
        other=sides[1],
        right=right,
        wrong=wrong,
        better=better,
        verdict=_in_words(better, this.name, other.name, right, wrong),
        photos=anew,
        migrate_seconds=seconds_for(anew, [seen[other.name][photo] for photo in read]),
        remarks=_remarks(this, other, unread, len(rows)),
    )


def _enough(persons: Sequence[int], sample: int) -> None:
    """`Invalid` where so few faces are confirmed that comparing by them would tell nothing."""
    _, counts = np.unique(np.array(persons, np.int64), return_counts=True)
    several = counts[counts > 1]
    if several.sum() < FEWEST or len(several) < 2:
        raise Invalid(
            f"{int(several.sum())} faces of {len(several)} people with several confirmed faces are"
            f" too few to compare packs by: it takes {FEWEST} of two people at least",
            hint="`kaleidoscope people review` asks for the most telling ones; `people confirm FACE"
            " --person PERSON` confirms one",
            faces=len(persons),
        )
    if sample < FEWEST:
        raise Invalid(f"a sample of {sample} faces tells nothing: take {FEWEST} at least")


@dataclass(frozen=True)
class Look:
    """What a pack sees in a photo: boxes, vectors, and the time it took."""

    boxes: list[list[float]]
    vectors: list[str]
    milliseconds: float


async def look_at(
    photos: Sequence[Photo],
    packs: Sequence[Pack],
    progress: Progress = lambda *_: None,
) -> dict[str, dict[int, Look]]:
    """What packs see in photos, by pack and photo; those that cannot be read are left out.

    A pack looks at all of them before the next one does: each process holds one at a time.
    """
    async with photo_pool(LOOK) as pool:
        return {pack.name: await _look_with(pool, pack, photos, progress) for pack in packs}


async def _look_with(
    pool: Pool, pack: Pack, photos: Sequence[Photo], progress: Progress
) -> dict[int, Look]:
    found: dict[int, Look] = {}
    done = count(1)

    async def one(photo: Photo) -> None:
        look = await _asked(pool, pack, photo.path)
        if look is not None:
            found[int(photo.photo_id)] = look
        progress(pack.name, next(done), len(photos))

    await asyncio.gather(*map(one, photos))
    return found


async def _asked(pool: Pool, pack: Pack, path: str) -> Look | None:
    """What a pack sees in a photo; None: it cannot be read."""
    try:
        found: dict[str, Any] = await pool.run({"pack": pack.name, "path": path}, name=path)
    except (ModelError, WorkFailed, Unavailable):
        raise  # the networks are at fault, not the photo
    except KaleidoscopeError:
        return None
    faces = found["faces"]
    return Look(
        [face["bbox"] for face in faces],
        [face["embedding"] for face in faces],
        sum(found["timings"].values()),
    )


def _judge(
    pack: Pack, rows: Sequence[Row[Any]], seen: Mapping[int, Look], regulars: int, wanted: float
) -> Judged:
    """What a pack makes of these faces, in a library of so many regulars.

    Judged is where yes becomes likelier than no, which means the same for every pack. From where
    on a face joins at once does not: some packs are strict there and leave more to consolidation.
    """
    found, vectors = _picked(rows, seen, pack)
    even = matching.even(pack, regulars)
    return rules.judge(vectors, found, _persons(rows), even, wanted)


def _persons(rows: Sequence[Row[Any]]) -> Integers:
    return np.array([row.person_id for row in rows], np.int64)


def _picked(
    rows: Sequence[Row[Any]], seen: Mapping[int, Look], pack: Pack
) -> tuple[Flags, Vectors]:
    """Which of these faces a pack sees, by their place in the photo, and their vectors."""
    by_photo: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        by_photo.setdefault(row.photo_id, []).append(number)
    vectors: dict[int, Any] = {}
    for photo, numbers in by_photo.items():
        look = seen[photo]
        for new, old in same_places(look.boxes, [rows[n].bbox for n in numbers]).items():
            vectors[numbers[old]] = np.frombuffer(base64.b64decode(look.vectors[new]), "<f4")
    found = np.zeros(len(rows), bool)
    found[list(vectors)] = True
    stacked = [vectors[number] for number in sorted(vectors)]
    return found, np.array(stacked, np.float32).reshape(len(stacked), pack.dimension)


def _side(pack: Pack, made: Judged, looks: Sequence[Look], faces: int) -> Side:
    seen = sum(len(look.boxes) for look in looks)
    return Side(
        pack=pack.name,
        licence=pack.licence,
        non_commercial=pack.non_commercial,
        dimension=pack.dimension,
        found=made.found,
        even=round(made.least, 4),
        precision=made.precision,
        recall=made.recall,
        advised=made.advised,
        others=seen - (0 if made.found is None else made.found.count),
        milliseconds=round(_milliseconds(looks), 1),
        megabytes=megabytes_for(faces, pack),
    )


def _milliseconds(looks: Sequence[Look]) -> float:
    """What a photo takes one process, on average."""
    return sum(look.milliseconds for look in looks) / max(1, len(looks))


def seconds_for(photos: int, looks: Sequence[Look]) -> float:
    """How long so many photos take this machine, by what some took."""
    processes = load(MlSettings).processes or cores()
    return round(photos * _milliseconds(looks) / 1000 / processes, 1)


def megabytes_for(faces: int, pack: Pack) -> float:
    """What the vectors of so many faces take."""
    return round(faces * pack.dimension * 4 / 1e6, 1)


def _in_words(
    better: Verdict, this: str, other: str, right: Difference | None, wrong: Difference | None
) -> str:
    if right is None or wrong is None:
        return "nothing can be said: no photo could be read"
    told = (
        f"{other} has {right.more} faces right that {this} has not, and {right.fewer} the other way"
        f" round; it has {wrong.more} wrong that {this} has not, and {wrong.fewer} the other way"
        " round"
    )
    sure: dict[Verdict, str] = {
        "other": f"{other} is better, and surely so",
        "this": f"{this} is better, and surely so",
        "mixed": "neither is better in all: the one finds more and confuses more",
        "open": "these faces do not tell which is better",
    }
    return f"{sure[better]}: {told}"


def _remarks(this: Pack, other: Pack, unread: int, faces: int) -> list[str]:
    """What somebody who reads the figures should know."""
    remarks = [
        f"{this.name} found these faces in the first place: that it finds them again says little"
    ]
    if other.non_commercial:
        remarks.append(f"{other.name} may not be used commercially: {other.licence}")
    if "not measured" in other.thresholds.measured:
        remarks.append(
            f"the thresholds of {other.name} are not measured: once it is in use, `kaleidoscope"
            " people calibrate` and the threshold proposed here may do better"
        )
    if unread:
        remarks.append(f"{unread} photos are gone or cannot be read: their faces are left out")
    if faces < ENOUGH:
        remarks.append(f"{faces} faces are few: it takes {ENOUGH} to tell a small difference")
    return remarks
