"""The system clock, and ids."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from uuid import UUID

from application.ports.runtime import Clock, Ids


class SystemClock(Clock):
    def now(self) -> datetime:
        now = datetime.now(UTC)
        return now.replace(microsecond=now.microsecond // 1000 * 1000)


class TimeOrderedIds(Ids):
    """Version 7 UUIDs by RFC 9562, method 1: 48 bits of milliseconds, then 12 of a counter.

    They sort messages and chatrooms, so the time is the one that all hosts share. Python has uuid7 from 3.14 on.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._last = 0

    def new(self) -> UUID:
        # Ids beyond 4,096 in a millisecond borrow from the next one.
        ticks = max(round(self._clock.now().timestamp() * 1000) * 4096, self._last + 1)
        self._last = ticks
        milliseconds, fraction = divmod(ticks, 4096)
        random_bits = int.from_bytes(os.urandom(8)) & ((1 << 62) - 1)
        return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random_bits)
