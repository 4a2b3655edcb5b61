"""Where received files go: decided from what they are and from what the ledger has."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.paths import to_bytes, to_text
from kaleidoscope.kernel.settings import load
from kaleidoscope.library.models import MAX_PATH_BYTES
from kaleidoscope.library.outside.custody import Identity, is_free, look, same_content
from kaleidoscope.library.queries import custody as rows
from kaleidoscope.library.queries import files as ledger
from kaleidoscope.library.queries import kept
from kaleidoscope.library.queries.custody import First, Plan
from kaleidoscope.library.rules import companions, dates
from kaleidoscope.library.rules.custody import folder_of, numbered, stem_length
from kaleidoscope.library.rules.dates import Chosen
from kaleidoscope.library.service.receiving import Parcel, Received
from kaleidoscope.library.service.registration import hash_elders
from kaleidoscope.library.settings import LibrarySettings

NO_MEDIA = "it is neither a photo nor a video"
EMPTY = "it is empty"
ALONE = "there is no photo that it tells about"
WAITS = "it waits for a companion that is still being written"
WAITS_FOR_PHOTO = "it waits for its photo, which cannot be filed"
LONG = f"the path is too long: {MAX_PATH_BYTES} bytes are possible"
APART = timedelta(days=1)  # files that look like companions by name, and were taken farther apart
FOUND = (
    "width",
    "height",
    "duration_seconds",
    "frame_rate",
    "location",
    "candidates",
    "camera_make",
    "camera_model",
    "camera_serial",
    "content_id",
    "is_motion_photo",
    "error",
)
_WEIGHT = {"high": 0, "medium": 1, "low": 2}


@dataclass(frozen=True)
class Left:
    """A file that stays where it is, and why."""

    path: str
    kind: str
    cause: str


@dataclass(frozen=True)
class _Home:
    """Where files lie by one that was filed before: in `folder`, with `mark` in their names."""

    folder: bytes
    mark: bytes
    group: UUID


@dataclass
class _Wish:
    """A plan whose target still wants a free name: `folder` and `name` are bytes."""

    plan: Plan
    folder: bytes
    name: bytes
    stem: int


@dataclass
class _Bundle:
    """Wishes that get the same number where a name is taken. `mark`: the number they have by what
    was filed before.
    """

    wishes: list[_Wish]
    number: int = 0
    mark: bytes = b""
    group: UUID | None = None

    def target(self, wish: _Wish) -> str:
        return to_text(os.path.join(wish.folder, numbered(wish.name, wish.stem, self.number)))

    def targets(self) -> list[str]:
        return list(self.by_target())

    def by_target(self) -> dict[str, Plan]:
        return {self.target(w): w.plan for w in self.wishes if w.plan.how != "remove"}


async def plan(
    db: Database, parcels: Sequence[Parcel], inbox: str
) -> tuple[list[Plan], list[Left]]:
    """What shall become of received files; some may have to stay for now."""
    left = [one for parcel in parcels for one in _staying(parcel)]
    stay = {one.path for one in left}
    whole = [Parcel(tuple(f for f in p.files if f.path not in stay)) for p in parcels]
    whole = _joined([p for p in whole if p.files])
    media = [f for p in whole for f in p.files if _is_media(f)]
    firsts, lying = await _firsts(db, media)
    sidecars = [f for p in whole if not any(map(_is_media, p.files)) for f in p.files]
    owners = await _late_owners(db, [f for f in sidecars if f.named.is_sidecar])
    elders = await _elders(db, [f for f in media if f.file_hash not in firsts])
    planner = _Planner(inbox, firsts, lying, owners, elders)
    bundles = [bundle for parcel in whole for bundle in planner.bundles(parcel)]
    if planner.followed:
        async with db.transaction() as session:
            await rows.put_together(session, planner.followed)
    plans, hopeless = await _with_names(db, bundles)
    return plans, left + hopeless


async def plan_again(db: Database, photo_ids: Sequence[int]) -> tuple[list[Plan], list[Left]]:
    """Where filed originals, and what travels with them, shall lie by their dates."""
    settings = load(LibrarySettings)
    root = to_text(settings.originals)
    async with db.transaction() as session:
        assets = await rows.filed_assets(session, photo_ids, root)
        ids = [asset.photo_id for asset in assets]
        sidecars = await kept.companions(session, ids)
    homes = {
        asset.leader: to_text(settings.originals / folder_of(settings.originals_template, asset.at))
        for asset in assets
        if asset.photo_id == asset.leader
    }
    moving: dict[int, list[_Moving]] = {}
    for asset in assets:
        kind = _Moving("refile", asset.photo_id, asset.path, asset.file_hash)
        moving.setdefault(asset.leader, []).append(kind)
    leaders = {asset.photo_id: asset.leader for asset in assets}
    for one in sidecars:
        sidecar = _Moving("sidecar", one.photo_id, one.path, one.file_hash)
        moving[leaders[one.photo_id]].append(sidecar)
    left: list[Left] = []
    bundles = []
    for leader, files in moving.items():
        away = [f for f in files if os.path.dirname(f.path) != homes[leader]]
        wishes, lost = await asyncio.to_thread(_wishes, away, to_bytes(homes[leader]))
        left += lost
        if wishes:
            bundles.append(_Bundle(wishes))
    plans, hopeless = await _with_names(db, bundles)
    return plans, left + hopeless


@dataclass(frozen=True)
class _Moving:
    """A filed file that shall lie elsewhere."""

    kind: str
    photo_id: int
    path: str
    file_hash: str


def _wishes(files: Sequence[_Moving], folder: bytes) -> tuple[list[_Wish], list[Left]]:
    by_name = {to_bytes(f.path).rpartition(b"/")[2]: f for f in files}
    named = {n.name: n for group in companions.groups(list(by_name)) for n in group}
    group = uuid4() if len(files) > 1 else None
    wishes, left = [], []
    for name, file in by_name.items():
        identity = look(file.path)
        content = same_content([file.path])[file.path]
        # An editor may write to a sidecar; to an original nobody may.
        expected = content if file.kind == "sidecar" else file.file_hash
        if identity is None or content is None or content != expected:
            left.append(Left(file.path, "changed", "it is not what the ledger says"))
            continue
        made = Plan(
            kind=file.kind,
            how="link",
            inbox=None,
            source=file.path,
            identity=str(identity),
            size=identity.size,
            file_hash=content,
            target=None,
            group=group,
            photo_id=file.photo_id,
        )
        wishes.append(_Wish(made, folder, name, named[name].stem))
    return wishes, left


def facts_of(file: Received) -> dict[str, Any]:
    """What the ledger will say of a file, as plain data that any database can hold."""
    told = file.metadata or {}
    chosen = chosen_date(file)
    facts: dict[str, Any] = {name: told.get(name) for name in FOUND}
    facts |= {
        "sample_hash": file.sample_hash,
        "mime_type": file.mime_type,
        "media_type": file.media_type,
        "modified_at": file.modified_at.isoformat(),
        "width": _positive(told.get("width")),
        "height": _positive(told.get("height")),
        "duration_seconds": _not_negative(told.get("duration_seconds")),
        "frame_rate": _not_negative(told.get("frame_rate")),
        "location": _location(told.get("location")),
        "captured_at": chosen.captured_at.isoformat() if chosen.captured_at else None,
        "offset_minutes": _minutes(chosen.captured_offset),
        "captured_at_source": chosen.source,
        "captured_at_confidence": chosen.confidence,
    }
    cleaned: dict[str, Any] = facts if _is_clean(facts) else _clean(facts)
    return cleaned


def bare_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The least that makes a row, of a file whose facts the database refuses."""
    kept = ("sample_hash", "media_type", "modified_at", "captured_at", "captured_at_source",
            "captured_at_confidence")  # fmt: skip
    return {name: facts.get(name) for name in kept}


def time_of(facts: Mapping[str, Any]) -> datetime:
    """The modification time that `facts_of`, or a child, has written down."""
    return datetime.fromisoformat(facts["modified_at"])


def chosen_date(file: Received) -> Chosen:
    """When a file was taken: the best that it tells, at the worst its modification time."""
    told = (file.metadata or {}).get("candidates") or []
    try:
        chosen = dates.choose(dates.from_plain(told))
    except (ValueError, KeyError, TypeError):
        chosen = dates.choose([])
    if chosen.captured_at is None:
        wall = file.modified_at.astimezone(UTC).replace(tzinfo=None)
        return Chosen(wall, timedelta(0), "mtime", "low")
    return chosen


# -- what the ledger has


async def _firsts(
    db: Database, media: Sequence[Received]
) -> tuple[dict[str, First], dict[int, Identity]]:
    """The first assets with these contents, and what lies where the ledger says."""
    async with db.transaction() as session:
        found = await rows.firsts(session, {f.file_hash for f in media})
        fresh = [f for f in media if f.file_hash not in found]
        elders = await ledger.lookalikes(session, fresh) if fresh else []
        elders += await ledger.known(session, [f.path for f in fresh])  # an inbox indexed in place
    unhashed = [elder for elder in elders if elder.file_hash is None]
    if unhashed:  # indexed in place, and not hashed yet: now that decides something
        await hash_elders(db, unhashed)
        async with db.transaction() as session:
            found |= await rows.firsts(session, {f.file_hash for f in fresh})
    lying = await asyncio.to_thread(_lying, list(found.values()))
    return found, lying


def _lying(firsts: Iterable[First]) -> dict[int, Identity]:
    return {
        f.photo_id: there
        for f in firsts
        if (there := look(f.path)) is not None and there.size == f.size
    }


async def owned(db: Database, sidecars: Sequence[Received], within: float) -> set[str]:
    """Those of these sidecars whose photo was filed in the last seconds.

    One filed long ago may have the name by chance: cameras count from 1 again and again.
    """
    found = await _late_owners(db, sidecars)
    return {path for path, owner in found.items() if owner.age <= timedelta(seconds=within)}


async def _late_owners(db: Database, sidecars: Sequence[Received]) -> dict[str, Any]:
    """For sidecars that came after their photo: what was filed under its name before."""
    wanted: dict[str, list[str]] = {}
    for one in sidecars:
        folder = to_bytes(one.path).rpartition(b"/")[0]
        names = [n + e for n in companions.owners(one.named.name) for e in _USUAL]
        wanted[one.path] = [to_text(folder + b"/" + name) for name in names]
    if not wanted:
        return {}
    async with db.transaction() as session:
        found = await rows.filed_from(session, {p for paths in wanted.values() for p in paths})
    return {
        path: next(found[p] for p in paths if p in found)
        for path, paths in wanted.items()
        if any(p in found for p in paths)
    }


async def _elders(db: Database, media: Sequence[Received]) -> dict[str, Any]:
    """For photos and films whose other half may have come before: what was filed as that."""
    wanted: dict[str, list[str]] = {}
    for one in media:
        folder = to_bytes(one.path).rpartition(b"/")[0]
        endings = _OF_PHOTOS if one.media_type == "video" else _OF_FILMS
        names = [stem + e for stem in companions.stems(one.named.name) for e in endings]
        wanted[one.path] = [to_text(folder + b"/" + n) for n in names if n != one.named.name]
    if not wanted:
        return {}
    async with db.transaction() as session:
        found = await rows.filed_from(session, {p for paths in wanted.values() for p in paths})
    return {
        one.path: elder
        for one in media
        for elder in [next((found[p] for p in wanted[one.path] if p in found), None)]
        if elder is not None and elder.kind == "file" and elder.media_type != one.media_type
    }


_EXTENSIONS = (b"jpg", b"jpeg", b"heic", b"png", b"mov", b"mp4", b"dng", b"cr2", b"cr3", b"nef")
_USUAL = (b"", *(b"." + e for e in _EXTENSIONS), *(b"." + e.upper() for e in _EXTENSIONS))
_OF_PHOTOS = tuple(b"." + e for e in (b"heic", b"HEIC", b"jpg", b"JPG", b"jpeg", b"JPEG"))
_OF_FILMS = tuple(b"." + e for e in (b"mov", b"MOV", b"mp4", b"MP4", b"MP"))


# -- decisions


class _Planner:
    """Decides for the parcels of one inbox, one after the other."""

    def __init__(
        self,
        inbox: str,
        firsts: Mapping[str, First],
        lying: Mapping[int, Identity],
        owners: Mapping[str, Any],
        elders: Mapping[str, Any],
    ) -> None:
        settings = load(LibrarySettings)
        self._inbox = inbox
        self._root = to_bytes(inbox)
        self._firsts = firsts
        self._lying = lying
        self._owners = owners
        self._elders = elders
        self.followed: dict[int, UUID] = {}  # what was filed alone before, and is joined now
        self._claimed: set[str] = set()
        self._template = settings.originals_template
        self._remove = settings.duplicates == "remove"
        self._originals = os.fsencode(settings.originals)
        self._duplicates = os.fsencode(settings.duplicates_folder)
        self._set_aside = os.fsencode(settings.set_aside_folder)

    def bundles(self, parcel: Parcel) -> list[_Bundle]:
        media = [f for f in parcel.files if _is_media(f)]
        rest = [f for f in parcel.files if not _is_media(f)]
        filed, copies = self._sorted(media)
        group = uuid4() if len(parcel.files) > 1 else None
        bundles = [self._filed(leader, files, group) for leader, files in _by_date(filed)]
        into = {f.path: bundle for bundle, files in bundles for f in files}
        made = [bundle for bundle, _ in bundles]
        doubled = {f.path: _Bundle([self._copied(f, group)], group=group) for f in copies}
        for one in rest:
            owner = _owner(one, [*filed, *copies])
            if not one.named.is_sidecar:
                cause = EMPTY if one.size == 0 else NO_MEDIA
                made.append(_Bundle([self._apart(one, cause, group)]))
            elif owner is None:
                made.append(self._orphan(one))
            elif owner.path in into:
                bundle = into[owner.path]
                folder = bundle.wishes[0].folder
                bundle.wishes.append(self._beside(one, owner, folder, bundle))
            else:
                bundle = doubled[owner.path]
                folder = os.path.join(self._duplicates, self._relative(one))
                bundle.wishes.append(self._beside(one, owner, folder, bundle))
        return [*made, *doubled.values()]

    def _sorted(self, media: Sequence[Received]) -> tuple[list[Received], list[Received]]:
        """What is to be filed, and what the ledger or an earlier file of the batch has."""
        filed, copies = [], []
        for file in media:
            if self._is_known(file) or file.file_hash in self._claimed:
                copies.append(file)
            else:
                self._claimed.add(file.file_hash)
                filed.append(file)
        return filed, copies

    def _is_known(self, file: Received) -> bool:
        """Whether the ledger's first copy is there, and another file than this very one.

        Of an inbox that was indexed in place the first copy is what lies in it: it is filed.
        """
        first = self._firsts.get(file.file_hash)
        there = self._lying.get(first.photo_id) if first else None
        return there is not None and not there.is_same_file(file.identity)

    def _filed(
        self, leader: Received, files: Sequence[Received], group: UUID | None
    ) -> tuple[_Bundle, Sequence[Received]]:
        below = folder_of(self._template, chosen_date(leader).captured_at)
        folder, mark = os.path.join(self._originals, os.fsencode(below)), b""
        home = self._home(leader, files, folder)
        if home is not None:
            folder, mark, group = home.folder, home.mark, home.group
        wishes = []
        for file in files:
            first = self._firsts.get(file.file_hash)  # known, and gone from where it lay
            made = self._plan(file, "file", group, photo_id=first.photo_id if first else None)
            made = replace(made, facts=facts_of(file))
            name, stem = _marked(file, mark)
            wishes.append(_Wish(made, folder, name, stem))
        return _Bundle(wishes, mark=mark, group=group), files

    def _home(self, leader: Received, files: Sequence[Received], own: bytes) -> _Home | None:
        """Beside the other half of a Live or motion photo that came before; None: it is a whole,
        or there is no such half. A photo goes by its own day, whatever its film was filed under.
        """
        elder = self._elders.get(leader.path)
        if elder is None or len({f.media_type for f in files}) > 1:
            return None
        folder, _, filed_as = to_bytes(elder.path).rpartition(b"/")
        is_below = folder.startswith(self._originals + b"/")
        if not is_below or (leader.media_type == "photo" and folder != own):
            return None
        if not _is_near(leader, elder):
            return None
        group = elder.together or self.followed.setdefault(elder.photo_id, uuid4())
        return _Home(folder, _mark(to_bytes(elder.source).rpartition(b"/")[2], filed_as), group)

    def _copied(self, file: Received, group: UUID | None) -> _Wish:
        first = self._firsts.get(file.file_hash)
        made = self._plan(file, "duplicate", group, photo_id=first.photo_id if first else None)
        if self._remove:
            made = replace(made, how="remove")
        folder = os.path.join(self._duplicates, self._relative(file))
        return _Wish(made, folder, file.named.name, _stem(file))

    def _apart(self, file: Received, cause: str, group: UUID | None) -> _Wish:
        made = replace(self._plan(file, "set-aside", group), cause=cause)
        folder = os.path.join(self._set_aside, self._relative(file))
        return _Wish(made, folder, file.named.name, _stem(file))

    def _beside(self, file: Received, owner: Received, folder: bytes, bundle: _Bundle) -> _Wish:
        made = replace(self._plan(file, "sidecar", bundle.group), facts={"of": owner.path})
        name, stem = _marked(file, bundle.mark)
        return _Wish(made, folder, name, stem)

    def _orphan(self, file: Received) -> _Bundle:
        """A sidecar without a photo beside it: to the photo that was filed before, or aside."""
        owner = self._owners.get(file.path)
        if owner is None or owner.path is None:
            return _Bundle([self._apart(file, ALONE, None)])
        folder, _, filed_as = to_bytes(owner.path).rpartition(b"/")
        received_as = to_bytes(owner.source).rpartition(b"/")[2]
        name, stem = file.named.name, received_as[: stem_length(received_as)]
        if name.startswith(stem):  # the number that the photo got, if it got one
            name = filed_as[: stem_length(filed_as)] + name[len(stem) :]
        made = self._plan(file, "sidecar", None, photo_id=owner.photo_id)
        return _Bundle([_Wish(made, folder, name, stem_length(name))])

    def _plan(
        self, file: Received, kind: str, group: UUID | None, photo_id: int | None = None
    ) -> Plan:
        return Plan(
            kind=kind,
            how="link" if file.links == 1 else "copy",
            inbox=self._inbox,
            source=file.path,
            identity=str(file.identity),
            size=file.size,
            file_hash=file.file_hash,
            target=None,
            group=group,
            photo_id=photo_id,
        )

    def _relative(self, file: Received) -> bytes:
        """The folder of a file below its inbox."""
        folder = os.path.dirname(to_bytes(file.path))
        return folder[len(self._root) :].lstrip(b"/") if folder.startswith(self._root) else b""


def _is_media(file: Received) -> bool:
    return file.media_type is not None and not file.named.is_sidecar and file.size > 0


def _stem(file: Received) -> int:
    return file.named.stem


def _marked(file: Received, mark: bytes) -> tuple[bytes, int]:
    """A file's name with a mark behind its stem, and where the stem ends then."""
    name, stem = file.named.name, _stem(file)
    return name[:stem] + mark + name[stem:], stem + len(mark)


def _mark(received_as: bytes, filed_as: bytes) -> bytes:
    """What filing has put into a name; nothing where it is another name altogether."""
    stem = companions.named(received_as).stem
    start, end = received_as[:stem], received_as[stem:]
    if not (filed_as.startswith(start) and filed_as.endswith(end)):
        return b""
    return filed_as[stem : len(filed_as) - len(end)]


def _is_near(file: Received, elder: Any) -> bool:
    """Whether a file was taken with one that was filed before, and has not its name by chance:
    cameras count from 1 again and again.
    """
    chosen = chosen_date(file)
    if "low" in (chosen.confidence, elder.confidence) or not chosen.captured_at or not elder.at:
        return bool(elder.age <= APART)
    return bool(abs(chosen.captured_at - elder.at) <= APART)


def _leader(files: Sequence[Received]) -> Received:
    """Whose date counts for all: a photo before a video, a camera's before an edit."""
    return min(
        files,
        key=lambda f: (
            f.media_type == "video",
            companions.is_edit(f.named.name),
            _WEIGHT[chosen_date(f).confidence],
            f.named.name,
        ),
    )


def _by_date(files: Sequence[Received]) -> list[tuple[Received, list[Received]]]:
    """Files with their leader; one that surely was taken on another day goes by itself."""
    left, found = list(files), []
    while left:
        leader = _leader(left)
        mine = [f for f in left if f is leader or not _is_apart(f, leader)]
        found.append((leader, [leader, *(f for f in mine if f is not leader)]))
        left = [f for f in left if f not in mine]
    return found


def _is_apart(file: Received, leader: Received) -> bool:
    one, other = chosen_date(file), chosen_date(leader)
    if "low" in (one.confidence, other.confidence) or not one.captured_at or not other.captured_at:
        return False
    return abs(one.captured_at - other.captured_at) > APART


def _owner(sidecar: Received, media: Sequence[Received]) -> Received | None:
    """The photo that a sidecar of the same parcel tells about."""
    named = [f for f in media if f.named.name == sidecar.named.of]
    return named[0] if named else _leader(media) if media else None


def _joined(parcels: Sequence[Parcel]) -> list[Parcel]:
    """Parcels with a Live Photo's video in that of its photo, whatever the two are called."""
    photos: dict[tuple[str, bytes], int] = {}
    for number, parcel in enumerate(parcels):
        for file in parcel.files:
            if file.media_type == "photo" and (content_id := _content_id(file)):
                photos[content_id, os.path.dirname(to_bytes(file.path))] = number
    merged = list(parcels)
    for number, parcel in enumerate(parcels):
        video = parcel.files[0]
        if any(f.media_type == "photo" for f in parcel.files) or video.media_type != "video":
            continue
        key = (_content_id(video) or "", os.path.dirname(to_bytes(video.path)))
        home = photos.get(key)
        if home is not None and home != number:
            merged[home] = Parcel((*merged[home].files, *parcel.files))
            merged[number] = Parcel(())
    return [parcel for parcel in merged if parcel.files]


def _content_id(file: Received) -> str | None:
    found = (file.metadata or {}).get("content_id")
    return found if isinstance(found, str) and found else None


# -- names


async def _with_names(db: Database, bundles: Sequence[_Bundle]) -> tuple[list[Plan], list[Left]]:
    """Plans with a free name each: free on the disk, in the ledger, and in this very batch."""
    used: set[str] = set()
    following: dict[tuple[bytes, bytes], int] = {}
    unsettled = list(bundles)
    while unsettled:
        await asyncio.to_thread(_number, unsettled, used, following)
        wanted = {target for bundle in unsettled for target in bundle.targets()}
        async with db.transaction() as session:
            taken = await rows.taken(session, wanted)
        unsettled = [b for b in unsettled if taken.intersection(b.targets())]
        for bundle in unsettled:
            bundle.number += 1
    plans: list[Plan] = []
    hopeless: list[Left] = []
    for bundle in bundles:
        for wish in bundle.wishes:
            target = bundle.target(wish)
            if wish.plan.how == "remove":
                plans.append(wish.plan)
            elif len(target.encode()) > MAX_PATH_BYTES:
                hopeless.append(Left(wish.plan.source, "path-too-long", LONG))
            else:
                plans.append(replace(wish.plan, target=target))
    return plans, hopeless


def _number(
    bundles: Sequence[_Bundle], used: set[str], following: dict[tuple[bytes, bytes], int]
) -> None:
    """Give each bundle the lowest number that is free for all its names."""
    for bundle in bundles:
        first = bundle.wishes[0]
        key = (first.folder, first.name)
        bundle.number = max(bundle.number, following.get(key, 0))
        while any(t in used or not _may_have(p, t) for t, p in bundle.by_target().items()):
            bundle.number += 1
        following[key] = bundle.number + 1
        used.update(bundle.targets())


def _may_have(plan: Plan, target: str) -> bool:
    """Whether a file can be laid down there, or lies there already and the ledger has lost it.

    A database of yesterday does not know what was filed today: it is not filed a second time.
    """
    if is_free(target):
        return True
    there = look(target) if plan.kind in ("file", "sidecar") and plan.inbox else None
    if there is None or there.size != plan.size:
        return False
    return same_content([target])[target] == plan.file_hash


def _staying(parcel: Parcel) -> list[Left]:
    """What of a parcel cannot go now. Where one file is still being written, the others wait."""
    if any(f.trouble and f.trouble[0] == "busy" for f in parcel.files):
        return [Left(f.path, *(f.trouble or ("busy", WAITS))) for f in parcel.files]
    left = [Left(f.path, *f.trouble) for f in parcel.files if f.trouble]
    good = [f for f in parcel.files if not f.trouble]
    long = [f for f in good if len(f.path.encode()) > MAX_PATH_BYTES]
    left += [Left(f.path, "path-too-long", LONG) for f in long]
    stay = {one.path for one in left}
    if any(f.path in stay and not f.named.is_sidecar for f in parcel.files):
        sidecars = [f for f in good if f.named.is_sidecar and f.path not in stay]
        left += [Left(f.path, "busy", WAITS_FOR_PHOTO) for f in sidecars]
    return left


# -- what the database can hold


def _is_clean(facts: Mapping[str, Any]) -> bool:
    try:
        spelled = json.dumps(facts, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return "\\u0000" not in spelled and "\\ud" not in spelled


def _clean(value: Any) -> Any:
    """Text without NULs and half characters, numbers that are numbers."""
    if isinstance(value, str):
        return value.replace("\0", "").encode("utf-8", "replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(v) for v in value]
    return value


def _positive(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and 0 < value < 2**31 else None


def _not_negative(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e12 else None


def _location(value: Any) -> dict[str, float] | None:
    try:
        lat, lon = float(value["lat"]), float(value["lon"])
    except (TypeError, KeyError, ValueError):
        return None
    return {"lat": lat, "lon": lon} if abs(lat) <= 90 and abs(lon) <= 180 else None


def _minutes(offset: timedelta | None) -> int | None:
    return None if offset is None else round(offset.total_seconds() / 60)
