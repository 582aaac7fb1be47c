"""The history of messages by months. Ids are time-ordered, so an id says when its message was sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

#: By how much the clocks of two processes may differ.
CLOCK_TOLERANCE = timedelta(days=1)
FIRST_ID = UUID(int=0)


def first_id(at: datetime) -> UUID:
    """The smallest id that a message of this time may have."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


def time_of(id: UUID) -> datetime:
    """The time in a time-ordered id."""
    return datetime.fromtimestamp((id.int >> 80) / 1000, UTC)


def month_of(at: datetime) -> datetime:
    """Its beginning."""
    return at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def next_month(month: datetime) -> datetime:
    return month_of(month + timedelta(days=31))


def oldest_id_in(room_id: UUID) -> UUID:
    """No message of the room has a smaller id, since messages are younger than their room."""
    return first_id(time_of(room_id) - CLOCK_TOLERANCE) if room_id.version == 7 else FIRST_ID
