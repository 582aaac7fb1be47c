"""Housekeeping: removing what has expired."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from application.ports.accounts import GuessLimits, OtpChallenges, OtpSendLimits, Sessions, Users
from application.ports.billing import Checkouts, PaymentEvents
from application.ports.chat import MessageHistory, MessageQueue
from application.ports.runtime import Clock, IdempotencyKeys

#: After they expired, which is a day after they were opened. Whose a payment is matters until it has ended.
CHECKOUTS_KEPT = timedelta(days=90)
EVENTS_KEPT = timedelta(days=30)  # Stripe repeats an event for three days, and shows it for thirty

WORKERS_KEPT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class PurgeExpired:
    """Remove what has expired: codes, sessions, guesses, idempotency keys, checkouts, event ids, past days' use
    and old messages.

    Any worker may do this, any number of times.
    """

    users: Users
    challenges: OtpChallenges
    sessions: Sessions
    guess_limits: GuessLimits
    send_limits: OtpSendLimits
    keys: IdempotencyKeys
    checkouts: Checkouts
    events: PaymentEvents
    queue: MessageQueue
    history: MessageHistory
    clock: Clock
    #: None keeps messages without end.
    messages_kept: timedelta | None = None

    async def __call__(self) -> None:
        now = self.clock.now()
        await self.users.purge(today=now.date())
        await self.challenges.purge(expired_before=now)
        await self.sessions.purge(now=now)
        await self.guess_limits.purge(now=now)
        await self.send_limits.purge(now=now)
        await self.keys.purge()
        await self.checkouts.purge_checkouts(expired_before=now - CHECKOUTS_KEPT)
        await self.events.purge_events(received_before=now - EVENTS_KEPT)
        await self.queue.forget_workers(expired_for=WORKERS_KEPT)
        await self.history.prepare()
        if self.messages_kept is not None:
            await self.history.remove_before(now - self.messages_kept)


@dataclass(frozen=True, slots=True)
class EraseDeleted:
    """Erase the messages of deleted rooms and users, which are out of sight already."""

    history: MessageHistory

    async def __call__(self) -> None:
        while await self.history.erase_deleted():
            pass
