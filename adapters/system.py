"""The system clock, and ids."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from uuid import UUID

from application.ports.runtime import Clock, Ids


class SystemClock(Clock):
    def now(self) -> datetime:
        now = datetime.now(UTC)
        return now.replace(microsecond=now.microsecond // 1000 * 1000)


class TimeOrderedIds(Ids):
    """Version 7 UUIDs by RFC 9562, method 3: 48 bits of milliseconds, then 12 of their fraction.

    Python has uuid7 from 3.14 on.
    """

    def __init__(self) -> None:
        self._last = 0

    def new(self) -> UUID:
        # A tick is 1/4096 ms, about 244 ns; ids made faster than that borrow from later ticks.
        ticks = max(time.time_ns() * 4096 // 1_000_000, self._last + 1)
        self._last = ticks
        milliseconds, fraction = divmod(ticks, 4096)
        random_bits = int.from_bytes(os.urandom(8)) & ((1 << 62) - 1)
        return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random_bits)
