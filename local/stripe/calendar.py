"""Periods of calendar time, as Stripe counts them."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime

HOUR = 3600
DAY = 24 * HOUR


def months_after(moment: int, months: int) -> int:
    """The same day of a later month, or its last day if that month is shorter."""
    start = datetime.fromtimestamp(moment, UTC)
    years, month = divmod(start.month - 1 + months, 12)
    year, month = start.year + years, month + 1
    day = min(start.day, calendar.monthrange(year, month)[1])
    return int(start.replace(year=year, month=month, day=day).timestamp())
