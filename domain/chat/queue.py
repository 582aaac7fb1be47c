"""Messages as a queue: due times, leases and notifications. All times are the store's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from domain.chat.messages import MAX_DEATHS, Message, MessageStatus, Outcome
from domain.errors import MessageEnded
from domain.ids import WorkerId

#: The lease of a worker that is not known, or not any more.
GONE = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that answers messages. All that it has is its own as long as its one lease lasts."""

    id: WorkerId
    #: How long its lease lasts after it was renewed.
    lease: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry:
    """A message with what the queue knows of it. Verbs return the next state."""

    message: Message
    due_at: datetime
    #: When workers were last notified of it.
    notified_at: datetime
    #: The worker that has it, and that worker's lease.
    worker: WorkerId | None = None
    lease_until: datetime | None = None
    #: The model was asked since the message was queued.
    called: bool = False

    @classmethod
    def of(cls, message: Message, now: datetime) -> QueueEntry:
        """A message that is queued, of which a notification is on its way."""
        return cls(message=message, due_at=now, notified_at=now)

    def claimable_since(self, now: datetime) -> datetime | None:
        """When it became due or its worker's lease expired; None if it is not claimable."""
        match self.message.status:
            case MessageStatus.QUEUED:
                since: datetime | None = self.due_at
            case MessageStatus.GENERATING:
                since = self.lease_until
            case _:
                since = None
        return since if since is not None and since <= now else None

    def is_suspect(self, now: datetime) -> bool:
        """Whether it is claimable, and its next death would be its last."""
        return self.claimable_since(now) is not None and self.message.claimed().deaths >= MAX_DEATHS - 1

    def is_held(self, attempt: int) -> bool:
        return self.message.status is MessageStatus.GENERATING and self.message.attempt == attempt

    def claimed(self, now: datetime, *, worker: WorkerId, alone: bool) -> QueueEntry | None:
        """By a worker with a lease. None if it is not claimable, or only `alone`."""
        if self.claimable_since(now) is None or (self.is_suspect(now) and not alone):
            return None
        # A worker that died may have asked the model.
        called = self.called or self.message.status is MessageStatus.GENERATING
        return replace(self, message=self.message.claimed(), worker=worker, called=called)

    def returned(self, now: datetime, *, delay: timedelta, failed: bool, called: bool) -> QueueEntry:
        """To the queue, due after `delay`; at once, if it is to be cancelled. `called`: by this attempt."""
        message = self.message.returned(failed=failed)
        due_at = now if message.cancel_requested else now + delay
        return replace(self._left(message), due_at=due_at, called=self.called or called)

    def is_refundable(self, outcome: Outcome, *, called: bool) -> bool:
        """Whether it gives its allowance back: a failure does, and a cancellation before the model was asked."""
        is_unasked = outcome.status is MessageStatus.CANCELLED and not (self.called or called)
        return self.message.charged and (outcome.status is MessageStatus.FAILED or is_unasked)

    def ended(self, outcome: Outcome, now: datetime, *, refunded: bool) -> QueueEntry:
        return self._left(self.message.ended(outcome, now, refunded=refunded))

    def cancelled(self, now: datetime) -> QueueEntry:
        """Ended, if nobody works on it; else its worker is asked to end it. Raises MessageEnded."""
        is_queued = self.message.status is MessageStatus.QUEUED
        if self.message.status.is_final:
            raise MessageEnded
        if not is_queued and self.claimable_since(now) is None:
            return replace(self, message=replace(self.message, cancel_requested=True))
        # A worker that died may have asked the model.
        refunded = self.is_refundable(Outcome(status=MessageStatus.CANCELLED), called=not is_queued)
        return self._left(self.message.cancelled(now, refunded=refunded))

    def _left(self, message: Message) -> QueueEntry:
        return replace(self, message=message, worker=None, lease_until=None)

    def requeued(self, now: datetime) -> QueueEntry | None:
        """With a notification missing. None unless it failed."""
        if (message := self.message.requeued(now)) is None:
            return None
        return QueueEntry(message=message, due_at=now, notified_at=now - timedelta(days=1))

    def lacks_notification(self, now: datetime, *, notified_before: timedelta) -> bool:
        """Whether workers should be notified, again if the last notification is at least `notified_before` ago.

        A message that waits is notified of ever more rarely, since then the queue may merely be long: the pause is
        half the time it has waited, so that the first notification, about as old as the message, is repeated too.
        """
        since = self.claimable_since(now)
        if since is None or self.notified_at < since:
            return since is not None
        pause = notified_before
        if self.message.status is MessageStatus.QUEUED:
            pause = max(pause, min((now - self.message.queued_at) / 2, 3 * pause))
        return self.notified_at <= now - pause
