"""What no user asks for: removing what has expired."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from application.ports.accounts import OtpChallenges, Sessions
from application.ports.runtime import Clock, IdempotencyKeys


@dataclass(frozen=True, slots=True)
class PurgeExpired:
    """Remove codes, sessions and idempotency keys that can do nothing any more. Any worker, any number of times."""

    challenges: OtpChallenges
    sessions: Sessions
    keys: IdempotencyKeys
    clock: Clock
    session_lifetime: timedelta

    async def __call__(self) -> None:
        now = self.clock.now()
        await self.challenges.purge(expired_before=now)
        await self.sessions.purge(opened_before=now - self.session_lifetime)
        await self.keys.purge()
