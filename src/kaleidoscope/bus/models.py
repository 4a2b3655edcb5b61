"""Tables of the bus: messages to be published, waiting and dead, and who receives what."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Identity, Index, Integer, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kaleidoscope.kernel.db import Base

TIME = DateTime(timezone=True)
NOW = func.now()


class OutboxRow(Base):
    """A message of a committed transaction, on its way to the transport."""

    __tablename__ = "bus_outbox"
    __table_args__ = (
        {
            "comment": "Messages published by committed transactions"
            " and not yet handed to the transport"
        },
    )

    seq: Mapped[int] = mapped_column(
        BigInteger, Identity(), primary_key=True, comment="Order of publishing"
    )
    message_id: Mapped[UUID] = mapped_column(
        comment="The message's id; stays the same when it is sent again"
    )
    topic: Mapped[str] = mapped_column(Text, comment="What the message is about")
    key: Mapped[str] = mapped_column(
        Text, comment="Messages of one key keep their order where a handler asks"
    )
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB, comment="The event's fields")
    headers: Mapped[dict[str, Any]] = mapped_column(
        JSONB, comment="Facts about the message that are no part of the event"
    )
    created_at: Mapped[datetime] = mapped_column(
        TIME, server_default=NOW, comment="When it was published"
    )


class Subscription(Base):
    """A group that receives a topic."""

    __tablename__ = "bus_subscriptions"
    __table_args__ = (
        {"comment": "Which groups receive which topic: each gets every message once"},
    )

    topic: Mapped[str] = mapped_column(Text, primary_key=True, comment="The topic")
    consumer_group: Mapped[str] = mapped_column(
        Text, primary_key=True, comment="The group of workers that share the work"
    )
    ordered: Mapped[bool] = mapped_column(
        comment="Whether the messages of one key are handled one after the other"
    )


class QueuedMessage(Base):
    """A message that one group has still to handle. Its storage settings are in the migration."""

    __tablename__ = "bus_messages"
    __table_args__ = (
        Index(
            "ix_bus_messages_waiting",
            "topic",
            "consumer_group",
            "available_at",
            "seq",
            postgresql_where=text("claimed_until IS NULL AND slot IS NULL"),
        ),
        Index(
            "ix_bus_messages_claimed",
            "topic",
            "consumer_group",
            "claimed_until",
            postgresql_where=text("claimed_until IS NOT NULL"),
        ),
        Index(
            "ix_bus_messages_slot",
            "topic",
            "consumer_group",
            "slot",
            "seq",
            postgresql_where=text("slot IS NOT NULL"),
        ),
        {
            "comment": "The queue: one row a message and receiving group,"
            " gone when it is acknowledged"
        },
    )

    message_id: Mapped[UUID] = mapped_column(
        primary_key=True,
        comment="The message's id; a message sent again while it waits is dropped by it",
    )
    topic: Mapped[str] = mapped_column(Text, comment="What the message is about")
    consumer_group: Mapped[str] = mapped_column(
        Text, primary_key=True, comment="The group that has to handle it"
    )
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), comment="Order of sending")
    key: Mapped[str] = mapped_column(
        Text, comment="Messages of one key keep their order where a handler asks"
    )
    slot: Mapped[int | None] = mapped_column(
        BigInteger,
        comment="Hash of the key where the group wants order: one message of a slot at a time;"
        " else null",
    )
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB, comment="The event's fields")
    headers: Mapped[dict[str, Any]] = mapped_column(
        JSONB, comment="Facts about the message that are no part of the event"
    )
    history: Mapped[list[dict[str, Any]]] = mapped_column(
        JSONB,
        server_default=text("'[]'"),
        comment="Attempts that failed: [{time, consumer, error}]",
    )
    failures: Mapped[int] = mapped_column(
        Integer, server_default=text("0"), comment="How many attempts failed"
    )
    lost: Mapped[int] = mapped_column(
        Integer,
        server_default=text("0"),
        comment="How many consumers died or fell silent with it,"
        " which is no failure of the message",
    )
    claim: Mapped[int] = mapped_column(
        Integer,
        server_default=text("0"),
        comment="Number of its claim: the receipt by which a consumer that lost it is told apart",
    )
    claimed_by: Mapped[str | None] = mapped_column(
        Text, comment="The consumer that last claimed it"
    )
    claimed_until: Mapped[datetime | None] = mapped_column(
        TIME, comment="Until when it is invisible to other consumers; null while it waits"
    )
    available_at: Mapped[datetime] = mapped_column(
        TIME, server_default=NOW, comment="Not to be claimed before"
    )
    enqueued_at: Mapped[datetime] = mapped_column(
        TIME, server_default=NOW, comment="When it was sent"
    )


class DeadLetterRow(Base):
    """A message that was given up."""

    __tablename__ = "dead_letters"
    __table_args__ = (
        Index("ix_dead_letters_topic_died_at", "topic", "died_at"),
        {
            "comment": "Messages whose attempts are spent;"
            " they stay until a person revives or deletes them"
        },
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True, comment="Its number")
    message_id: Mapped[UUID] = mapped_column(comment="The message's id")
    topic: Mapped[str] = mapped_column(Text, comment="The topic it was sent to")
    consumer_group: Mapped[str | None] = mapped_column(
        Text,
        comment="The group that could not handle it and gets it back when revived;"
        " null: every group",
    )
    key: Mapped[str] = mapped_column(Text, comment="The message's key")
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB, comment="The event's fields")
    headers: Mapped[dict[str, Any]] = mapped_column(
        JSONB, comment="Facts about the message that are no part of the event"
    )
    cause: Mapped[str] = mapped_column(Text, comment="Why it was given up, in words")
    history: Mapped[list[dict[str, Any]]] = mapped_column(
        JSONB, comment="Attempts that failed: [{time, consumer, error}]"
    )
    enqueued_at: Mapped[datetime | None] = mapped_column(TIME, comment="When it was sent")
    died_at: Mapped[datetime] = mapped_column(
        TIME, server_default=NOW, comment="When it was given up"
    )
