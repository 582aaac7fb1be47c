"""What is read out of Stripe's objects."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from domain.billing import SubscriptionStatus
from domain.ids import UserId

_MAX_TEXT = 255


def printable(value: object) -> str | None:
    """The value if it is a short printable text."""
    return value if isinstance(value, str) and 0 < len(value) <= _MAX_TEXT and value.isprintable() else None


def id_of(value: Any) -> str | None:
    """The id of an object that is given in full or as an id."""
    return value if value is None or isinstance(value, str) else str(value.id)


def user_named_in(reference: object, metadata: Any) -> UserId | None:
    """The user that an object names: this service names them in both places, the former one in one of them."""
    named = [metadata[key] for key in ("user_id", "userId") if key in metadata] if metadata else []
    for text in (reference, *named):
        try:
            return UserId(UUID(text))
        except (ValueError, TypeError, AttributeError):
            continue
    return None


def status_of(text: str) -> SubscriptionStatus:
    try:
        return SubscriptionStatus(text)
    except ValueError:  # a status of a later API version
        return SubscriptionStatus.UNPAID


def time_of(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
