"""Which questions a person is asked, and what an answer would settle."""

from __future__ import annotations

import math
from dataclasses import dataclass

NEIGHBOURS = 5  # persons that each one is asked about at most, the most similar first


@dataclass(frozen=True)
class Party:
    """A person as a question sees them."""

    person_id: int
    name: str | None
    faces: int


@dataclass(frozen=True)
class Question:
    """Is this whole person, or this open face, the person `person_id`? `faces` are those that an
    answer settles, `gain` is what is to be learnt of them in bits.
    """

    person_id: int
    other_id: int | None
    face_id: int | None
    similarity: float
    probability: float
    faces: int
    gain: float
    is_named: bool


def entropy(probability: float) -> float:
    """How open a yes or no of this probability is: 1 bit at even odds, 0 when it is certain."""
    if not 0 < probability < 1:
        return 0.0
    no = 1 - probability
    return -(probability * math.log2(probability) + no * math.log2(no))


def about_persons(one: Party, other: Party, similarity: float, probability: float) -> Question:
    """Whether two persons are one; the one asked for is named, or else the older.

    With a name everybody's faces get it: all of the other's are settled. Without, the smaller's.
    """
    first, second = sorted((one, other), key=lambda p: (p.name is None, p.person_id))
    to_be_named = first.name is not None and second.name is None
    faces = second.faces if to_be_named else min(first.faces, second.faces)
    return Question(
        first.person_id,
        second.person_id,
        None,
        similarity,
        probability,
        faces,
        faces * entropy(probability),
        first.name is not None,
    )


def about_face(person: Party, face_id: int, similarity: float, probability: float) -> Question:
    """Whether an open face is a person."""
    return Question(
        person.person_id,
        None,
        face_id,
        similarity,
        probability,
        1,
        entropy(probability),
        person.name is not None,
    )


def may_be_one(one: Party, other: Party) -> bool:
    """Whether it is worth asking: who gave two persons different names has said they are two."""
    return one.name is None or other.name is None or one.name == other.name
