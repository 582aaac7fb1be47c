"""Periods of calendar time, as Stripe counts them."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime

from local.stripe.faults import Json

HOUR = 3600
DAY = 24 * HOUR


def period_after(anchor: int, recurring: Json, count: int) -> int:
    """The end of the count-th period. A month too short ends on its last day, the next again on the anchor's."""
    count *= recurring["interval_count"]
    interval = recurring["interval"]
    if interval in ("day", "week"):
        return anchor + count * DAY * (7 if interval == "week" else 1)
    return months_after(anchor, count * (12 if interval == "year" else 1))


def months_after(moment: int, months: int) -> int:
    start = datetime.fromtimestamp(moment, UTC)
    years, month = divmod(start.month - 1 + months, 12)
    year, month = start.year + years, month + 1
    day = min(start.day, calendar.monthrange(year, month)[1])
    return int(start.replace(year=year, month=month, day=day).timestamp())
