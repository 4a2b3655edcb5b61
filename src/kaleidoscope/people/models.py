"""Tables of people: persons, faces, their vectors, and the ledger of every change of identity."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

from pgvector.sqlalchemy import Vector
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REAL
from sqlalchemy.orm import Mapped, mapped_column

from kaleidoscope.kernel.db import Base

NOW = func.now()
PHOTO = "media_assets.photo_id"


class Person(Base):
    """One real person, as far as the product knows (seed 000)."""

    __tablename__ = "persons"
    __table_args__ = (
        CheckConstraint("merged_into <> id", name="not_itself"),
        Index("ix_persons_version", "version"),
        Index(
            "ix_persons_merged_into",
            "merged_into",
            postgresql_where=text("merged_into IS NOT NULL"),
        ),
        Index(
            "ix_persons_primary_embedding_id",
            "primary_embedding_id",
            postgresql_where=text("primary_embedding_id IS NOT NULL"),
        ),
        Index(
            "ix_persons_birth_date",
            "birth_date",
            postgresql_where=text("birth_date IS NOT NULL"),
        ),
        {"comment": "One row a person; a merged person's row stays and points at the survivor"},
    )

    id: Mapped[int] = mapped_column(
        BigInteger, Identity(), primary_key=True, comment="person_id in the API and messages"
    )
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=NOW, comment="When the person was founded"
    )
    display_name: Mapped[str | None] = mapped_column(
        String(255), comment="The name a user gave; null while unnamed"
    )
    birth_date: Mapped[date | None] = mapped_column(
        Date, comment="When the person was born, where a user said so"
    )
    primary_embedding_id: Mapped[int | None] = mapped_column(
        BigInteger,
        ForeignKey("face_vectors.id", ondelete="SET NULL", use_alter=True),
        comment="Vector of the face that represents the person: the one of best quality",
    )
    user_id: Mapped[int | None] = mapped_column(
        BigInteger, comment="The enrolled user this person is, if any"
    )
    merged_into: Mapped[int | None] = mapped_column(
        BigInteger,
        ForeignKey("persons.id"),
        comment="The surviving person this id resolves to, always in one step; null while it lives",
    )
    version: Mapped[int] = mapped_column(
        BigInteger,
        server_default=text("(pg_current_xact_id()::text)::bigint"),
        comment="Transaction that last changed the person; person-dump is read by it",
    )


class Face(Base):
    """One face in one photo."""

    __tablename__ = "faces"
    __table_args__ = (
        CheckConstraint("cardinality(bbox) = 4", name="bbox_has_four"),
        CheckConstraint(
            "landmarks IS NULL OR cardinality(landmarks) = 10", name="landmarks_are_five"
        ),
        CheckConstraint("status IN ('assigned', 'open')", name="status"),
        CheckConstraint("(status = 'assigned') = (person_id IS NOT NULL)", name="assigned"),
        CheckConstraint("confirmed_by IN ('machine', 'person')", name="confirmed_by"),
        Index("ix_faces_photo_id", "photo_id"),
        Index("ix_faces_person_id", "person_id"),
        Index("ix_faces_open", "id", postgresql_where=text("status = 'open'")),
        Index("ix_faces_copy_of", "copy_of", postgresql_where=text("copy_of IS NOT NULL")),
        {"comment": "Every face found, with the person it was given to"},
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True, comment="face_id")
    photo_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey(PHOTO, ondelete="CASCADE"), comment="The photo it is in"
    )
    person_id: Mapped[int | None] = mapped_column(
        BigInteger, ForeignKey("persons.id"), comment="Whose face it is; null while open"
    )
    bbox: Mapped[list[float]] = mapped_column(
        ARRAY(REAL), comment="x1, y1, x2, y2 in pixels of the photo as displayed"
    )
    landmarks: Mapped[list[float] | None] = mapped_column(
        ARRAY(REAL), comment="Five points x, y (eyes, nose, mouth corners), displayed pixels"
    )
    suggested_person_id: Mapped[int | None] = mapped_column(
        BigInteger, comment="What the ML service suggested from its copy of the persons"
    )
    similarity: Mapped[float | None] = mapped_column(
        REAL, comment="Average cosine to the person's other faces when it was assigned"
    )
    confidence: Mapped[float | None] = mapped_column(
        REAL, comment="The detector's probability that this is a face"
    )
    quality: Mapped[float | None] = mapped_column(
        REAL, comment="0 to 1 from size, sharpness and pose; a poor face founds no person"
    )
    measures: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB, comment="What the quality was made of"
    )
    status: Mapped[str] = mapped_column(
        Text,
        server_default=text("'open'"),
        comment="assigned (has a person) or open (too poor or too unlike everybody)",
    )
    confirmed_by: Mapped[str] = mapped_column(
        Text,
        server_default=text("'machine'"),
        comment="Who had the last word; the machine never moves what a person confirmed",
    )
    model_version: Mapped[str | None] = mapped_column(
        Text, comment="Detector and recogniser that found it"
    )
    attempt_id: Mapped[UUID] = mapped_column(comment="The processing attempt that last saw it")
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=NOW, comment="When it was first found"
    )
    copy_of: Mapped[int | None] = mapped_column(
        BigInteger,
        ForeignKey("faces.id", ondelete="SET NULL"),
        comment="The same face in a picture of which this photo is a copy: counted there",
    )


class Picture(Base):
    """How a photo looks as a whole."""

    __tablename__ = "pictures"
    __table_args__ = (
        CheckConstraint("cardinality(bands) = 4", name="four_bands"),
        Index("ix_pictures_bands", "bands", postgresql_using="gin"),
        {"comment": "How photos with faces look as a whole: copies of one look the same"},
    )

    photo_id: Mapped[int] = mapped_column(
        BigInteger,
        ForeignKey(PHOTO, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        comment="The photo",
    )
    hash: Mapped[int] = mapped_column(
        BigInteger,
        comment="Perceptual hash of its lowest frequencies; in copies few of the 64 bits differ",
    )
    bands: Mapped[list[int]] = mapped_column(
        ARRAY(Integer),
        comment="The hash in four numbered parts: who differs in three bits has one in common",
    )
    width: Mapped[int] = mapped_column(
        Integer, comment="Displayed pixels that the faces' boxes refer to"
    )
    height: Mapped[int] = mapped_column(
        Integer, comment="Displayed pixels that the faces' boxes refer to"
    )


class FaceVector(Base):
    """A face as one model pack sees it."""

    __tablename__ = "face_vectors"
    __table_args__ = (
        UniqueConstraint("face_id", "pack"),
        {"comment": "Unit vectors of faces, one a face and model pack"},
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True, comment="Its number")
    face_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("faces.id", ondelete="CASCADE"), comment="The face"
    )
    pack: Mapped[str] = mapped_column(
        Text, comment="Model pack; vectors of different packs are never compared"
    )
    model_version: Mapped[str | None] = mapped_column(Text, comment="Version within the pack")
    embedding: Mapped[Any] = mapped_column(Vector(), comment="The unit vector")
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=NOW, comment="When it was computed"
    )


class PersonVector(Base):
    """A person as one model pack sees them: kept with the faces, always recomputable from them."""

    __tablename__ = "person_vectors"
    __table_args__ = (
        CheckConstraint("count >= 0", name="count"),
        {
            "comment": "Count, sum and mean of a person's face vectors, one row a person and pack",
            "postgresql_with": {"fillfactor": 70},
        },
    )

    person_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("persons.id"), primary_key=True, comment="The person"
    )
    pack: Mapped[str] = mapped_column(Text, primary_key=True, comment="Model pack")
    count: Mapped[int] = mapped_column(Integer, comment="How many faces it is made of")
    sum: Mapped[Any] = mapped_column(Vector(), comment="Sum of their unit vectors")
    mean: Mapped[Any] = mapped_column(
        Vector(), comment="sum / count: its inner product with a face is the average similarity"
    )
    indexed: Mapped[Any] = mapped_column(
        Vector(), comment="The mean as the search index has it: it follows once it is .03 away"
    )


class PhotoPerson(Base):
    """Who is in which photo (seed 000): each person once, however many of the faces are theirs."""

    __tablename__ = "photo_persons"
    __table_args__ = (
        Index("ix_photo_persons_person_id", "person_id"),
        {"comment": "Join of photos and persons, kept equal to the faces"},
    )

    photo_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey(PHOTO, ondelete="CASCADE"), primary_key=True, comment="The photo"
    )
    person_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("persons.id"), primary_key=True, comment="Somebody in it"
    )


class FaceRejection(Base):
    """A remembered "no": this face is not that person."""

    __tablename__ = "face_rejections"
    __table_args__ = (
        Index("ix_face_rejections_person_id", "person_id"),
        {"comment": "Faces that somebody said are not a person; never matched so again"},
    )

    face_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("faces.id", ondelete="CASCADE"), primary_key=True, comment="The face"
    )
    person_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("persons.id"), primary_key=True, comment="Who it is not"
    )
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=NOW, comment="When it was said"
    )


class IdentityEvent(Base):
    """One change of identity, with the states before and after, so that it can be undone."""

    __tablename__ = "identity_events"
    __table_args__ = (
        CheckConstraint("made_by IN ('machine', 'person')", name="made_by"),
        Index("ix_identity_events_person_ids", "person_ids", postgresql_using="gin"),
        Index("ix_identity_events_face_ids", "face_ids", postgresql_using="gin"),
        Index("ix_identity_events_round", "round", postgresql_where=text("round IS NOT NULL")),
        {"comment": "Ledger of merges, splits, renames, confirmations, rejections and undoings"},
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True, comment="event_id")
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=NOW, comment="When it was done"
    )
    kind: Mapped[str] = mapped_column(
        Text, comment="merge, split, rename, confirm, reject, names, consolidate, undo"
    )
    made_by: Mapped[str] = mapped_column(Text, comment="machine or person")
    person_ids: Mapped[list[int]] = mapped_column(
        ARRAY(BigInteger), comment="Every person it touched"
    )
    face_ids: Mapped[list[int]] = mapped_column(ARRAY(BigInteger), comment="Every face it touched")
    before: Mapped[dict[str, Any]] = mapped_column(
        JSONB, comment="Faces, persons and remembered noes that it changed, as they were"
    )
    after: Mapped[dict[str, Any]] = mapped_column(JSONB, comment="The same as it left them")
    undoes: Mapped[int | None] = mapped_column(
        BigInteger, ForeignKey("identity_events.id"), comment="The event that this one took back"
    )
    undone_by: Mapped[int | None] = mapped_column(
        BigInteger, ForeignKey("identity_events.id"), comment="The event that took this one back"
    )
    round: Mapped[int | None] = mapped_column(
        BigInteger,
        ForeignKey("identity_events.id"),
        comment="The consolidation it was part of: the number of its first event",
    )


class Consolidation(Base):
    """How far consolidation has come."""

    __tablename__ = "consolidations"
    __table_args__ = ({"comment": "One row a model pack: which changes have been consolidated"},)

    pack: Mapped[str] = mapped_column(Text, primary_key=True, comment="Model pack")
    version: Mapped[int] = mapped_column(
        BigInteger, comment="Persons changed at this version or later are still to be looked at"
    )
    finished_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=NOW, comment="When the last round ended"
    )
    looked_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True),
        server_default=text("to_timestamp(0)"),
        comment="Faces created before then were there in the last round",
    )
    thorough_version: Mapped[int] = mapped_column(
        BigInteger,
        server_default=text("0"),
        comment="Persons changed at this version or later are still to be taken apart as a whole",
    )


class ReviewQuestion(Base):
    """Something that a person's word would settle: is this face, or this whole person, P?"""

    __tablename__ = "review_questions"
    __table_args__ = (
        CheckConstraint("num_nonnulls(other_id, face_id) = 1", name="about_one"),
        CheckConstraint("other_id <> person_id", name="not_itself"),
        UniqueConstraint("person_id", "other_id"),
        UniqueConstraint("face_id", "person_id"),
        Index(
            "ix_review_questions_queue",
            "pack",
            "skips",
            text("is_named DESC"),
            text("gain DESC"),
            "id",
            postgresql_where=text("event_id IS NULL"),
        ),
        Index(
            "ix_review_questions_other_id",
            "other_id",
            postgresql_where=text("other_id IS NOT NULL"),
        ),
        Index(
            "ix_review_questions_event_id",
            "event_id",
            postgresql_where=text("event_id IS NOT NULL"),
        ),
        {"comment": "The review queue: who may be whom, ordered by what an answer would settle"},
    )

    id: Mapped[int] = mapped_column(
        BigInteger, Identity(), primary_key=True, comment="question_id in the API"
    )
    pack: Mapped[str] = mapped_column(Text, comment="Model pack that sees the likeness")
    person_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("persons.id"), comment="P: the person it may be, a named one first"
    )
    other_id: Mapped[int | None] = mapped_column(
        BigInteger, ForeignKey("persons.id"), comment="The whole person asked about"
    )
    face_id: Mapped[int | None] = mapped_column(
        BigInteger,
        ForeignKey("faces.id", ondelete="CASCADE"),
        comment="The open face asked about",
    )
    similarity: Mapped[float] = mapped_column(REAL, comment="Average cosine between the two")
    probability: Mapped[float] = mapped_column(
        REAL, comment="How likely yes is, calibrated, when it was last looked at"
    )
    faces: Mapped[int] = mapped_column(Integer, comment="How many faces an answer settles")
    gain: Mapped[float] = mapped_column(
        REAL, comment="faces times the entropy of the probability in bits: what is to be learnt"
    )
    is_named: Mapped[bool] = mapped_column(Boolean, comment="P has a name: asked before others")
    skips: Mapped[int] = mapped_column(
        Integer,
        server_default=text("0"),
        comment="How often it was put off; asked after those put off less",
    )
    event_id: Mapped[int | None] = mapped_column(
        BigInteger,
        ForeignKey("identity_events.id"),
        comment="The event that the answer made; null while open, and again once undone",
    )
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=NOW, comment="When it first came up"
    )


class ReviewProgress(Base):
    """How far the search for questions has come."""

    __tablename__ = "review_progress"
    __table_args__ = ({"comment": "One row a model pack: who has been looked at for questions"},)

    pack: Mapped[str] = mapped_column(Text, primary_key=True, comment="Model pack")
    version: Mapped[int] = mapped_column(
        BigInteger, comment="Persons changed at a later version are still to be looked at"
    )
    person_id: Mapped[int] = mapped_column(
        BigInteger, comment="... and those of this version above this id"
    )
    face_id: Mapped[int] = mapped_column(
        BigInteger, comment="Open faces above this one are still to be looked at"
    )
    faces_since: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=NOW, comment="When the round over open faces began"
    )
