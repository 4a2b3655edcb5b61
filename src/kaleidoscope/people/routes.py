"""People over HTTP: the ML service's callback and dump, and what users ask and say."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import StreamingResponse

from kaleidoscope.kernel import secrets
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Forbidden
from kaleidoscope.kernel.web import ServiceOnly, Session
from kaleidoscope.people import jobs, service
from kaleidoscope.people.schemas import (
    AnswerRequest,
    BirthDateRequest,
    BornView,
    Callback,
    CallbackAnswer,
    Callbacks,
    Classified,
    ClassifyRequest,
    CompareRequest,
    ConfirmRequest,
    ConsolidateRequest,
    MergeRequest,
    PersonLine,
    PersonView,
    PhotoView,
    RejectRequest,
    RenameRequest,
    ReviewQuestion,
    SplitRequest,
    UndoRequest,
    UndoRoundRequest,
)
from kaleidoscope.people.service import Answered, Comparison, Consolidated, Event, Quality

router = APIRouter(tags=["people"])

PersonId = Annotated[int, Path(ge=1, lt=2**63)]
QuestionId = Annotated[int, Path(ge=1, lt=2**63)]
FaceId = Annotated[int, Path(ge=1, lt=2**63)]


@router.post("/callback/photo-processed", dependencies=[ServiceOnly])
async def photo_processed(callback: Callback, session: Session) -> CallbackAnswer:
    """What the ML service found in a photo (seed 001): the only way persons and faces are written.

    Idempotent by `callback_id`, which is the attempt's id.
    """
    return await service.deliver(session, callback)


@router.post("/callback/photos-processed", dependencies=[ServiceOnly])
async def photos_processed(found: Callbacks, session: Session) -> list[CallbackAnswer]:
    """Several callbacks in one transaction: all of them are recorded, or none.

    A refusal is that of the first that is at fault: then deliver them one by one.
    """
    return await service.deliver_all(session, found.callbacks)


@router.get("/person-dump", dependencies=[ServiceOnly])
async def person_dump(
    request: Request,
    since_id: Annotated[
        int, Query(ge=0, lt=2**63, description="`next_since_id` of the page before.")
    ] = 0,
    limit: Annotated[int, Query(ge=1, le=50_000)] = 5000,
    changed_since: Annotated[
        int | None,
        Query(
            ge=0,
            lt=2**63,
            description="`version` of the first page last time: only what changed since.",
        ),
    ] = None,
    pack: Annotated[str | None, Query(description="Model pack; without one, that in use.")] = None,
) -> StreamingResponse:
    """Representative embeddings for local matching (seed 001), gzipped where that is accepted."""
    db: Database = request.app.state.db
    name = service.find_pack(pack).name
    pieces = service.dump(db, name, since_id, limit, changed_since)
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return StreamingResponse(pieces, media_type="application/json")
    return StreamingResponse(
        service.gzipped(pieces),
        media_type="application/json",
        headers={"Content-Encoding": "gzip"},
    )


@router.post("/classify-photo")
async def classify_photo(asked: ClassifyRequest, request: Request) -> Classified:
    """Who is in a photo, at once (seed 001). A file outside the ledger is matched, not recorded."""
    db: Database = request.app.state.db
    return await service.classify(db, photo_id=asked.photo_id, path=asked.path)


@router.get("/photo/{photo_id}")
async def photo(photo_id: Annotated[int, Path(ge=1, lt=2**63)], session: Session) -> PhotoView:
    """A photo of the ledger with its status, persons and detections."""
    return await service.photo(session, photo_id)


@router.get("/person/{person_id}")
async def person(
    person_id: PersonId,
    session: Session,
    include_embedding: bool = False,
    shown: Annotated[str | None, Header(alias=secrets.HEADER)] = None,
) -> PersonView:
    """A person with example photos; the embedding for our own services alone.

    The id of a merged person answers with who it was merged into.
    """
    if include_embedding and not secrets.is_service_secret(shown):
        raise Forbidden("embeddings are for Kaleidoscope's own services", header=secrets.HEADER)
    return await service.person(session, person_id, with_embedding=include_embedding)


@router.get("/people")
async def people(
    session: Session,
    named: Annotated[bool | None, Query(description="Only named, or only unnamed ones.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, lt=2**63)] = 0,
) -> list[PersonLine]:
    """Persons, those in most photos first."""
    return await service.persons(session, named=named, limit=limit, offset=offset)


@router.get("/people/history")
async def history(
    session: Session,
    person_id: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    before: Annotated[
        int | None, Query(ge=1, lt=2**63, description="Only events before this one.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> list[Event]:
    """Changes of identity, newest first."""
    return await service.history(session, person_id, before, limit)


@router.get("/people/quality")
async def quality(
    session: Session,
    wanted: Annotated[
        float, Query(gt=0, lt=1, description="The precision that a threshold is looked for.")
    ] = 0.99,
) -> Quality:
    """Precision and recall of the machine's assignments, by the faces that a person confirmed."""
    return await service.quality(session, wanted)


@router.post("/people/quality/compare")
async def compare(asked: CompareRequest, request: Request) -> Comparison:
    """What another pack would make of some confirmed faces. Nothing of the library is touched.

    Looks at their photos anew with both packs: minutes. 429 while another comparison is under way.
    """
    db: Database = request.app.state.db
    return await service.compare(db, asked.pack, sample=asked.sample, wanted=asked.wanted)


@router.get("/people/review")
async def review(
    session: Session, limit: Annotated[int, Query(ge=1, le=200)] = 20
) -> list[ReviewQuestion]:
    """What a person should be asked next: what settles most comes first, named persons before."""
    return await service.questions(session, limit)


@router.post("/people/review/{question_id}/answer")
async def answer(question_id: QuestionId, asked: AnswerRequest, session: Session) -> Answered:
    """Yes merges or confirms, no is remembered for ever, skip asks again after all others."""
    return await service.answer(session, question_id, asked.answer)


@router.post("/people/merge")
async def merge(asked: MergeRequest, session: Session) -> Event:
    """All of `gone` are the person `kept`; their ids resolve to it from now on."""
    return await service.merge(session, asked.kept, asked.gone)


@router.post("/people/undo")
async def undo(asked: UndoRequest, session: Session) -> Event:
    """Take back a change; without an id the last one that a person made."""
    return await service.undo(session, asked.event_id)


@router.post("/people/consolidate")
async def consolidate(asked: ConsolidateRequest, request: Request) -> Consolidated:
    """Merge persons that arrival order split and split whom it merged; a dry run only tells.

    No confirmed face is touched.
    """
    db: Database = request.app.state.db
    done = await jobs.consolidate(db, everybody=asked.everybody, dry_run=asked.dry_run)
    return done or Consolidated()


@router.post("/people/settle", status_code=HTTPStatus.NO_CONTENT)
async def settle(request: Request) -> None:
    """Consolidate now what the clock would in a moment; answers once that is done, by whomever.

    While photos are on their way there is nothing to be done yet.
    """
    db: Database = request.app.state.db
    await jobs.settle(db)


@router.post("/people/consolidate/undo")
async def undo_consolidation(asked: UndoRoundRequest, session: Session) -> list[Event]:
    """Take a consolidation back as a whole, the last of its events first."""
    return await service.undo_round(session, asked.round)


@router.post("/people/{person_id}/split")
async def split(person_id: PersonId, asked: SplitRequest, session: Session) -> Event:
    """These faces are somebody else, who gets an id of their own."""
    return await service.split(session, person_id, asked.face_ids, asked.display_name)


@router.post("/people/{person_id}/rename")
async def rename(person_id: PersonId, asked: RenameRequest, session: Session) -> Event:
    """Name a person, or take the name away."""
    return await service.rename(session, person_id, asked.display_name)


@router.post("/people/{person_id}/birth-date")
async def birth_date(person_id: PersonId, asked: BirthDateRequest, session: Session) -> BornView:
    """Say when a person was born, or take that away."""
    born = await service.set_birth_date(session, person_id, asked.birth_date)
    person = await service.person(session, born.person_id)
    return BornView(**person.model_dump(), reopened=born.reopened, kept=born.kept)


@router.post("/faces/{face_id}/confirm")
async def confirm(face_id: FaceId, asked: ConfirmRequest, session: Session) -> Event:
    """The face is this person: the machine never moves it again."""
    return await service.confirm(session, face_id, asked.person_id)


@router.post("/faces/{face_id}/reject")
async def reject(face_id: FaceId, asked: RejectRequest, session: Session) -> Event:
    """The face is not this person: remembered for ever."""
    return await service.reject(session, face_id, asked.person_id)
