"""`kaleidoscope people review`: the questions whose answers settle most, one after the other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Invalid
from kaleidoscope.kernel.terminal import console, emit, open_database, run
from kaleidoscope.people import jobs, service
from kaleidoscope.people.schemas import ReviewFace, ReviewQuestion
from kaleidoscope.people.service import Answered, Word

KEYS: dict[str, Word] = {"y": "yes", "yes": "yes", "n": "no", "no": "no", "s": "skip", "": "skip"}
LOOKS = 8  # faces of each side on the sheet


def review(
    answer: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--answer", metavar="QUESTION yes|no|skip", help="Answer one question and end."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many.")] = 20,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Draw the faces of each question there, to look at while you answer."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="List them as JSON, ask nothing.")] = False,
) -> None:
    """Who may be whom: asks you what settles most first. A no is never asked again."""
    if answer is not None:
        said = run(_answer(*answer))
        return emit(said, json=True) if json else _tell(said)
    if json:
        return emit(run(_questions(limit)), json=True)
    answers = run(_ask(limit, sheet))
    settled = sum(one.event is not None for one in answers)
    return emit(f"{settled} questions settled, {len(answers) - settled} put off")


async def _questions(limit: int) -> list[ReviewQuestion]:
    async with open_database() as db:
        await jobs.find_questions(db)
        async with db.transaction() as session:
            return await service.questions(session, limit)


async def _answer(question: str, word: str) -> Answered:
    if not question.isdecimal() or word not in get_args(Word):
        raise Invalid(
            f"{question!r} {word!r} is no answer", hint="for example `--answer 12 yes`, no or skip"
        )
    async with open_database() as db, db.transaction() as session:
        return await service.answer(session, int(question), cast(Word, word))


async def _ask(limit: int, sheet: Path | None) -> list[Answered]:
    """Ask up to so many questions, each time the one that settles most by then."""
    answers: list[Answered] = []
    put_off: set[int] = set()
    async with open_database() as db:
        await jobs.find_questions(db)
        while len(answers) < limit:
            async with db.transaction() as session:
                open_ = await service.questions(session, len(put_off) + 1)
            question = next((q for q in open_ if q.question_id not in put_off), None)
            if question is None:
                break
            if sheet is not None:
                await _draw(db, question, sheet)
            word = await asyncio.to_thread(_prompt, question)
            if word is None:
                break
            async with db.transaction() as session:
                answers.append(await service.answer(session, question.question_id, word))
            _tell(answers[-1])
            if word == "skip":
                put_off.add(question.question_id)
            else:
                await jobs.find_questions(db, portions=1)
    return answers


def _prompt(question: ReviewQuestion) -> Word | None:
    """What is typed; None: to end."""
    settles = f"{question.faces} face" + ("s" if question.faces > 1 else "")
    typer.echo(f"\n{service.in_words(question)}")
    typer.echo(f"  {100 * question.probability:.0f} % likely; settles {settles}")
    for party in (question.other, question.person):
        if party is not None and party.example is not None:
            typer.echo(f"  person {party.person_id}: {_where(party.example)}")
    if question.face is not None:
        typer.echo(f"  face {question.face.face_id}: {_where(question.face)}")
    while True:
        typed = typer.prompt("[y]es, [n]o, [s]kip, [q]uit", default="s").strip().lower()
        if typed in ("q", "quit"):
            return None
        if typed in KEYS or typed == "skip":
            return KEYS.get(typed, "skip")


def _where(face: ReviewFace) -> str:
    x1, y1, x2, y2 = (round(v) for v in face.bbox)
    return f"{face.path} at {x1},{y1} to {x2},{y2}"


async def _draw(db: Database, question: ReviewQuestion, sheet: Path) -> None:
    """A contact sheet: who is asked about, then the person."""
    from kaleidoscope.people.outside import montage  # decoders: slow to import

    cuts = []
    async with db.transaction() as session:
        if question.face is not None:
            cuts.append(montage.Cut(question.face.path, question.face.bbox))
        for party in (question.other, question.person):
            if party is not None:
                faces = await service.portraits(session, party.person_id, LOOKS)
                cuts += [montage.Cut(face.path, face.bbox) for face in faces]
    drawn, _ = await asyncio.to_thread(montage.contact_sheet, cuts)
    await asyncio.to_thread(montage.save, drawn, sheet)


def _tell(said: Answered) -> None:
    if said.event is None:
        return emit(f"question {said.question_id} is put off")
    emit(f"event {said.event.event_id}: {said.event.kind}, {said.event.faces_moved} faces moved")
    return console.print(f"[dim]`kaleidoscope people undo {said.event.event_id}` takes it back[/]")
