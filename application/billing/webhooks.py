"""Stripe's webhook."""

from __future__ import annotations

from dataclasses import dataclass

from application.ports.billing import PaymentEvents, PaymentGateway
from application.ports.runtime import Clock, JobQueue


@dataclass(frozen=True, slots=True)
class AcceptWebhookEvent:
    """Store the event's id and mark the user's subscriptions to be read from Stripe, both or neither.

    The content of the event is not trusted, for it may be old, late or out of order. It only says whose
    subscriptions to read.
    """

    events: PaymentEvents
    gateway: PaymentGateway
    queue: JobQueue
    clock: Clock

    async def __call__(self, *, body: bytes, signature: str | None) -> None:
        event = self.gateway.read_event(body, signature, now=self.clock.now())
        if event is not None and (changed := await self.events.add_event(event)):
            await self.queue.notify(changed)
