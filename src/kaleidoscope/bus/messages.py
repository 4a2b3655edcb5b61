"""What is said: events of the rooms, and the messages that carry them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict


class Event(BaseModel):
    """Something that happened or is to be done; a room's `events` declares the classes.

    The class is the only spelling of its message. Fields it does not know are ignored, so that a
    newer sender may say more.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    topic: ClassVar[str]

    def key(self) -> str:
        """Messages of one key are handled in order where a handler asks for it."""
        return ""


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a transport carries. `id` stays the same when a message is sent again."""

    topic: str
    key: str = ""
    payload: dict[str, Any]
    id: UUID = field(default_factory=uuid4)
    headers: Mapping[str, Any] = field(default_factory=dict)


# Headers that a transport heeds instead of carrying them: the one group that shall receive the
# message, and the failed attempts it comes with. A revived dead letter has both.
GROUP = "group"
HISTORY = "history"


@dataclass(frozen=True, kw_only=True)
class Delivery(Message):
    """A message in the hands of one consumer of one group, until it is settled.

    `attempt` counts from 1 and grows with failures; `lost` counts the consumers that died or fell
    silent with the message; `receipt` is the transport's own.
    """

    group: str
    attempt: int
    lost: int
    receipt: object
    enqueued_at: datetime


@dataclass(frozen=True, kw_only=True)
class Depth:
    """How many messages of a topic a group has before it.

    `waiting` may be claimed now, `delayed` later, `in_flight` are in the hands of consumers.
    `oldest` is when the oldest of all these was sent.
    """

    topic: str
    group: str
    waiting: int
    delayed: int
    in_flight: int
    oldest: datetime | None


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A message whose attempts are spent. `history`: [{time, consumer, error}] of each failure.

    `group` is who could not handle it; None: a room gave it up by its own rules.
    """

    id: int
    message_id: UUID
    topic: str
    group: str | None
    key: str
    payload: dict[str, Any]
    cause: str
    history: list[dict[str, Any]]
    enqueued_at: datetime | None
    died_at: datetime


def message_of(event: Event, *, id: UUID | None = None) -> Message:
    """The message that carries an event, under a new id unless one is given."""
    return Message(
        topic=event.topic,
        key=event.key(),
        payload=event.model_dump(mode="json"),
        id=id or uuid4(),
    )
