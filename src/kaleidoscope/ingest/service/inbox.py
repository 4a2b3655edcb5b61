"""The librarian: files what comes to rest in the inboxes, and says why something stays there.

Every sweep looks at everything; a sign of the system that something has changed only makes the next
one come at once. What a sweep begins and does not end, the next one takes up from the ledger.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from time import monotonic

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.ingest import queries, rules, schemas
from kaleidoscope.ingest.outside.inbox import Contents, Eye, changes, tidy
from kaleidoscope.ingest.outside.scan import Trouble
from kaleidoscope.ingest.queries import Problem
from kaleidoscope.ingest.settings import InboxSettings, IngestSettings
from kaleidoscope.kernel import clock
from kaleidoscope.kernel.db import Database, is_refusal
from kaleidoscope.kernel.errors import KaleidoscopeError, SettingsError
from kaleidoscope.kernel.paths import allow, to_bytes, to_text
from kaleidoscope.kernel.settings import load
from kaleidoscope.library import service as library
from kaleidoscope.library.service import Candidate, Identity, Outcome, Parcel, Work

log = structlog.get_logger(__name__)

SHOWN = 200  # problems, files set aside, and duplicates, of an inbox
MOST_PROBLEMS = 10_000  # kept of an inbox
AHEAD = 1  # portions that are read while another is filed
BRIEF = 0.5  # seconds between two sweeps at least: a copy under way tells of every write
QUIET = 10  # times as long as the telling took, nothing is told while files are filed
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds after a sweep that failed
# What goes away by itself, so that it is looked at again as soon as it has come to rest.
PASSING = ("busy", "changed", "vanished")


@dataclass(slots=True)
class _Waiting:
    """A file that is to be filed: what it was like, since when, and why it could not be yet."""

    identity: Identity
    since: float
    first_seen: float
    trouble: Trouble | None = None
    again_at: float = 0.0


@dataclass
class _Inbox:
    """What is known of one inbox from sweep to sweep."""

    root: bytes
    files: dict[str, _Waiting] = field(default_factory=dict)
    troubles: list[Trouble] = field(default_factory=list)
    unreleased: dict[str, Trouble] = field(default_factory=dict)
    since: dict[str, datetime] = field(default_factory=dict)
    emptied: dict[bytes, float] = field(default_factory=dict)
    written: list[Problem] | None = None
    quiet_until: float = 0.0  # telling how far it is goes through all files

    @property
    def path(self) -> str:
        return to_text(self.root)


class Librarian:
    """Files the inboxes of the settings. `work` reads files (`library.children`)."""

    def __init__(
        self, db: Database, work: Work, *, told: Callable[[str], None] = lambda _: None
    ) -> None:
        self._db = db
        self._work = work
        self._told = told
        self._settings = load(InboxSettings)
        self._eye = Eye(self._settings, load(IngestSettings))
        self._inboxes = [_Inbox(os.fsencode(folder)) for folder in self._settings.folders]
        self._blocked_until = 0.0
        self._looked = 0.0  # seconds that the last look took
        self.trouble: str | None = None
        self.stopping = asyncio.Event()

    # -- the loop

    async def run(self) -> None:
        """Sweep whenever something has changed, has come to rest, or the time has come."""
        wake = asyncio.Event()
        watching = asyncio.create_task(self._watch(wake))
        pause = FIRST_PAUSE
        try:
            while not self.stopping.is_set():
                wake.clear()
                try:
                    due = await self.sweep()
                    pause = FIRST_PAUSE
                except Exception as error:
                    # The database is away, no child starts …: nothing is lost, it goes on later.
                    self.trouble = str(error).split("\n")[0] or type(error).__name__
                    foreseen = isinstance(error, SQLAlchemyError | KaleidoscopeError | OSError)
                    log.warning(
                        "the sweep was broken off",
                        error=self.trouble,
                        again_in=pause,
                        exc_info=not foreseen,
                    )
                    due, pause = pause, min(2 * pause, LONGEST_PAUSE)
                await self._rest(wake, due)
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    async def _rest(self, wake: asyncio.Event, seconds: float) -> None:
        # A look through a large inbox takes its time: not again and again while it is filled.
        await _first(self.stopping, within=max(min(BRIEF, seconds), 2 * self._looked))
        if not self.stopping.is_set():
            await _first(wake, self.stopping, within=max(0.0, seconds - BRIEF))

    async def _watch(self, wake: asyncio.Event) -> None:
        """Wake at changes. Where the system cannot tell of them, the sweeps find them."""
        while self._settings.watch:
            known = self._there()
            try:
                if known:
                    await self._until_replaced(wake, known)
                else:
                    await asyncio.sleep(self._settings.sweep_seconds)
            except Exception as error:  # its queue has run over, no watches are left, ...
                log.warning("watching the inboxes was broken off", error=str(error))
                await asyncio.sleep(FIRST_PAUSE)
            wake.set()

    async def _until_replaced(self, wake: asyncio.Event, known: dict[bytes, object]) -> None:
        """Pass signs on until an inbox is another folder than it was, mounted anew perhaps."""

        async def listen() -> None:
            async for _ in changes(list(known)):
                wake.set()

        listening = asyncio.create_task(listen())
        try:
            while self._there() == known:
                done, _ = await asyncio.wait([listening], timeout=self._settings.sweep_seconds)
                if done:
                    return listening.result()
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await listening

    def _there(self) -> dict[bytes, object]:
        """The inboxes that are there, each with what makes it the same folder."""
        found: dict[bytes, object] = {}
        for inbox in self._inboxes:
            with suppress(OSError):
                status = Path(os.fsdecode(inbox.root)).stat()
                found[inbox.root] = (status.st_dev, status.st_ino)
        return found

    # -- a sweep

    async def open(self) -> None:
        """Make the inboxes, and let the services read what will be filed.

        Raises `SettingsError` for an inbox that holds what is filed, or lies in it.
        """
        self._refuse_circles()
        await asyncio.to_thread(self._make_folders)
        async with self._db.transaction() as session:
            await queries.keep_inboxes(session, [inbox.path for inbox in self._inboxes])
            for inbox in self._inboxes:
                await queries.set_inbox(session, inbox.path, 0, 0, None)
                for problem in await queries.inbox_problems(session, inbox.path, MOST_PROBLEMS):
                    inbox.since[problem.path] = problem.since

    def _refuse_circles(self) -> None:
        for inbox in self._inboxes:
            if (folder := library.circle(inbox.root)) is not None:
                raise SettingsError(
                    f"the inbox {inbox.path} and {folder} lie in one another",
                    hint="set inbox.folders, or the folders of [library], apart; is one of them"
                    " mounted in the other?",
                )

    def _make_folders(self) -> None:
        for inbox in self._inboxes:
            # Not its parents: an unmounted disk shall not become a folder of the same name.
            folder = Path(os.fsdecode(inbox.root))
            with suppress(OSError):
                folder.mkdir(exist_ok=True, parents=folder in _own_folders())
        allow(os.fsencode(library.folders()[0]))

    async def sweep(self) -> float:
        """Look through every inbox, file what has come to rest; seconds until the next is due.

        Raises `SettingsError` as `open` does: something may have been mounted since.
        """
        await asyncio.to_thread(self._refuse_circles)
        if await self._is_prepared():
            self._hear(await library.resume(self._db))
        due: float = self._settings.sweep_seconds
        for inbox in self._inboxes:
            due = min(due, await self._sweep(inbox))
        self._told(f"watching {', '.join(inbox.path for inbox in self._inboxes)}")
        return due

    async def _is_prepared(self) -> bool:
        """Whether files can be put where they belong now."""
        cause = await library.prepare(self._db)
        if cause or monotonic() >= self._blocked_until:  # a full disk is full until it is tried
            self.trouble = cause
        if cause:
            log.warning("nothing is filed", cause=cause)
            self._blocked_until = monotonic() + self._settings.retry_seconds
        return cause is None

    async def _sweep(self, inbox: _Inbox) -> float:
        began = monotonic()
        try:
            contents = await asyncio.to_thread(self._eye.look, inbox.root)
        except OSError as error:
            await asyncio.to_thread(self._make_folders)
            cause = f"the inbox cannot be read: {error.strerror or error}"
            contents = Contents(troubles=[Trouble(inbox.path, "unreadable-inbox", cause)])
        self._looked = monotonic() - began
        now = monotonic()
        self._update(inbox, contents, now)
        await asyncio.to_thread(self._tidy, inbox, now)
        ready = await self._ready(inbox, contents.files, now)
        await self._file(inbox, ready)
        await self._write(inbox, None)
        return self._due(inbox, monotonic())

    def _update(self, inbox: _Inbox, contents: Contents, now: float) -> None:
        """What each file was like before decides whether it has come to rest."""
        files: dict[str, _Waiting] = {}
        for file in contents.files:
            before = inbox.files.get(file.path)
            if before is None:
                before = _Waiting(file.identity, now, now)
            elif before.identity != file.identity:
                before = _Waiting(file.identity, now, before.first_seen)
            files[file.path] = before
        inbox.files = files
        inbox.troubles = contents.troubles
        inbox.unreleased = {p: t for p, t in inbox.unreleased.items() if p in files}

    async def _ready(self, inbox: _Inbox, files: Sequence[Candidate], now: float) -> list[Parcel]:
        """Parcels of which every file has come to rest and may be tried."""
        if now < self._blocked_until:
            return []
        known = [f for f in files if f.path not in inbox.unreleased]
        parcels = await asyncio.to_thread(library.parcels, known)
        settled = [p for p in parcels if all(self._may_go(inbox, f.path, now) for f in p.files)]
        alone = [p for p in settled if all(f.named.is_sidecar for f in p.files)]
        early = await self._waiting_for_photos(inbox, alone, now)
        return [p for p in settled if p.files[0].path not in early]

    def _may_go(self, inbox: _Inbox, path: str, now: float) -> bool:
        file = inbox.files[path]
        return now - file.since >= self._settings.settle_seconds and now >= file.again_at

    async def _waiting_for_photos(
        self, inbox: _Inbox, parcels: Sequence[Parcel], now: float
    ) -> set[str]:
        """The first files of parcels of sidecars whose photo may still come."""
        patience = self._settings.sidecar_seconds
        waiting = [p for p in parcels if now - inbox.files[p.files[0].path].first_seen < patience]
        sidecars = [f for p in waiting for f in p.files]
        found = await library.owned(self._db, sidecars, patience)
        return {p.files[0].path for p in waiting if not any(f.path in found for f in p.files)}

    def _due(self, inbox: _Inbox, now: float) -> float:
        """Seconds until something of this inbox may have come to rest, or may be tried again."""
        rest, patience = self._settings.settle_seconds, self._settings.sidecar_seconds
        moments = [self._blocked_until]
        for path, file in inbox.files.items():
            if path not in inbox.unreleased:
                moments += [file.since + rest, file.again_at, file.first_seen + patience]
        coming = [moment - now for moment in moments if moment > now]
        return float(max(BRIEF, min([*coming, self._settings.sweep_seconds])))

    # -- filing

    async def _file(self, inbox: _Inbox, parcels: Sequence[Parcel]) -> None:
        """File parcels, a portion in a transaction, while the next portion is read."""
        total = sum(len(p.files) for p in parcels)
        done = 0
        if total:
            self._told(f"filing {total} files of {inbox.path}")
        async with aclosing(self._read_ahead(parcels)) as portions:
            async for portion in portions:
                if not await self._is_prepared():  # a disk may go while a large inbox is filed
                    return
                number = sum(len(p.files) for p in portion)
                if monotonic() >= inbox.quiet_until:
                    await self._write(inbox, f"filing {done + 1} to {done + number} of {total}")
                self._hear(await self._take_in(portion, inbox))
                done += number
                if self.stopping.is_set() or monotonic() < self._blocked_until:
                    return

    async def _read_ahead(self, parcels: Sequence[Parcel]) -> AsyncGenerator[list[Parcel], None]:
        portions: asyncio.Queue[list[Parcel] | None] = asyncio.Queue(AHEAD)

        async def fill() -> None:
            try:
                for portion in rules.portions_by(parcels, _count, self._settings.portion):
                    await portions.put(await library.read(self._work, portion))
            finally:
                await portions.put(None)

        filling = asyncio.create_task(fill())
        try:
            while (portion := await portions.get()) is not None:
                yield portion
            await filling
        finally:
            filling.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await filling

    async def _take_in(self, portion: list[Parcel], inbox: _Inbox) -> list[Outcome]:
        """File a portion. What nobody foresaw costs the one file that it was met with."""
        try:
            return await library.take_in(self._db, portion, inbox.path)
        except Exception as error:
            if isinstance(error, SQLAlchemyError | KaleidoscopeError) and not is_refusal(error):
                raise
            log.exception("a portion could not be filed", files=len(portion))
            if len(portion) == 1:
                told = str(error).split("\n")[0]
                cause = f"unexpected: {type(error).__name__}: {told}"
                paths = [f.path for f in portion[0].files]
                return [Outcome(p, "left", kind="unexpected", cause=cause) for p in paths]
        return [o for parcel in portion for o in await self._take_in([parcel], inbox)]

    def _hear(self, outcomes: Sequence[Outcome]) -> None:
        """Remember why files stay, and which folders may be empty now."""
        now = monotonic()
        for outcome in outcomes:
            inbox = self._inbox_of(outcome.path)
            if inbox is None:
                continue
            if outcome.what == "left":
                self._stays(inbox, outcome, now)
            elif outcome.kind is not None:
                lies = f"filed at {outcome.target}" if outcome.target else "a duplicate"
                cause = f"it is {lies}; {outcome.cause}"
                inbox.unreleased[outcome.path] = Trouble(outcome.path, outcome.kind, cause)
            else:
                inbox.files.pop(outcome.path, None)
                inbox.unreleased.pop(outcome.path, None)
                inbox.emptied[to_bytes(outcome.path).rpartition(b"/")[0]] = now

    def _stays(self, inbox: _Inbox, outcome: Outcome, now: float) -> None:
        file = inbox.files.get(outcome.path)
        kind, cause = outcome.kind or "left", outcome.cause or ""
        if kind == "target":  # a full disk is full for the next file, too
            self._blocked_until = now + self._settings.retry_seconds
            self.trouble = cause
        if file is None:
            return
        if kind in PASSING:
            file.since, file.trouble = now, None
        else:
            file.trouble = Trouble(outcome.path, kind, cause)
            file.again_at = now + self._settings.retry_seconds

    def _inbox_of(self, path: str) -> _Inbox | None:
        mine = [i for i in self._inboxes if path.startswith(i.path.rstrip("/") + "/")]
        return max(mine, key=lambda i: len(i.root)) if mine else None

    def _tidy(self, inbox: _Inbox, now: float) -> None:
        """Remove folders that filing has emptied, once nobody has put anything in for a while."""
        for folder, since in list(inbox.emptied.items()):
            if now - since >= self._settings.settle_seconds:
                del inbox.emptied[folder]
                tidy(folder, inbox.root)

    # -- what is told

    async def _write(self, inbox: _Inbox, current: str | None) -> None:
        """Let others see how far it is."""
        now = monotonic()
        going = [f for p, f in inbox.files.items() if p not in inbox.unreleased and not f.trouble]
        settling = [f for f in going if now - f.since < self._settings.settle_seconds]
        problems = self._problems(inbox)
        async with self._db.transaction() as session:
            await queries.set_inbox(session, inbox.path, len(going), len(settling), current)
            if problems != inbox.written:
                await queries.set_inbox_problems(session, inbox.path, problems)
        inbox.written = problems
        inbox.quiet_until = monotonic() + QUIET * (monotonic() - now)

    def _problems(self, inbox: _Inbox) -> list[Problem]:
        stay = [file.trouble for file in inbox.files.values() if file.trouble]
        found = [*inbox.troubles, *stay, *inbox.unreleased.values()][:MOST_PROBLEMS]
        before, now = inbox.since, clock.now()
        inbox.since = {trouble.path: before.get(trouble.path, now) for trouble in found}
        return [Problem(t.path, t.code, t.cause, inbox.since[t.path]) for t in found]


async def inboxes(session: AsyncSession) -> schemas.Inboxes:
    """Every inbox of the settings, as the librarian saw it last."""
    seen = {row["path"]: row for row in await queries.inboxes(session)}
    lately = await library.taken_lately(session)
    found = []
    for folder in load(InboxSettings).folders:
        path = to_text(folder)
        row = seen.get(path)
        problems = await queries.inbox_problems(session, path, MOST_PROBLEMS)
        aside = await library.set_aside(session, path, SHOWN)
        doubled = await library.doubled_lately(session, path, SHOWN)
        taken = vars(lately.get(path, library.Taken()))
        found.append(
            schemas.Inbox(
                path=path,
                waiting=row["waiting"] if row else 0,
                settling=row["settling"] if row else 0,
                filed_last_hour=taken["filed_last_hour"],
                last_day=schemas.LastDay(**taken),
                problems=[schemas.InboxProblem(**vars(p)) for p in problems[:SHOWN]],
                problem_count=len(problems),
                set_aside=[schemas.SetAside(**vars(one)) for one in aside],
                duplicates=[schemas.Doubled(**vars(one)) for one in doubled],
                current=row["current"] if row else None,
                looked_at=row["looked_at"] if row else None,
            )
        )
    return schemas.Inboxes(inboxes=found)


def _own_folders() -> Collection[Path]:
    """Inboxes that are ours by default: made with the data folder."""
    field_info = InboxSettings.model_fields["folders"]
    assert field_info.default_factory is not None
    return list(field_info.default_factory())  # type: ignore[call-arg]


def _count(parcel: Parcel) -> int:
    return len(parcel.files)


async def _first(*events: asyncio.Event, within: float) -> None:
    """Wait until one of the events is set, or the time is over."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
