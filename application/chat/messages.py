"""Messages: sending, reading, cancelling, regenerating and continuing one, and what is left of the day's allowance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple
from uuid import UUID

from application.ports.chat import MessageDesk, Messages, ReplyStream
from application.ports.runtime import Clock, Ids, JobQueue
from domain.accounts import User
from domain.billing import Allowance, SendingLimits, Tier
from domain.chat.calls import ReplyPlan
from domain.chat.messages import Message, MessageStatus
from domain.errors import MessageNotFound
from domain.ids import ChatroomId, MessageId


class Accepted(NamedTuple):
    """A message that was queued, and what its user has used of the day with it."""

    message: Message
    allowance: Allowance


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Accept a message. It will be answered, or end in a named state, whatever happens from here on.

    One step consumes the allowance and stores the message. Workers are notified afterwards; if that
    fails, the next sweep finds the message. With the caller's own
    `message_id`, sending again has no further effect.
    """

    messages: Messages
    queue: JobQueue
    clock: Clock
    ids: Ids
    limits: Mapping[Tier, SendingLimits]
    plans: Mapping[Tier, ReplyPlan]

    async def __call__(
        self, *, user: User, chatroom_id: ChatroomId, input: str, message_id: MessageId | None = None
    ) -> Accepted:
        now = self.clock.now()
        plan = self.plans[user.tier(now)]
        message = Message(
            id=message_id or MessageId(self.ids.new()),
            chatroom_id=chatroom_id,
            user_id=user.id,
            input=input,
            created_at=now,
            queued_at=now,
            allowance_day=now.date(),
            max_output_tokens=plan.reply_tokens,
            thinking=plan.thinking,
        )
        allowance = await self.messages.accept(message, limits=self.limits[user.tier(now)])
        await self.queue.notify([message.id])
        if message_id is not None:  # it may have been sent before
            stored = await self.messages.get(message_id, chatroom_id, user.id)
            message = replace(message, created_at=stored.created_at)
        return Accepted(message, allowance)


@dataclass(frozen=True, slots=True)
class GetMessage:
    """One message with its state and, once there is one, its reply."""

    messages: Messages

    async def __call__(self, *, user: User, chatroom_id: ChatroomId, message_id: MessageId) -> Message:
        return await self.messages.get(message_id, chatroom_id, user.id)


@dataclass(frozen=True, slots=True)
class CancelMessage:
    """End a message that is not answered yet. The text written so far is kept.

    The allowance is given back if the model was not called yet. If no worker has the message, it has
    ended when this returns; else its worker ends it soon. Raises MessageEnded.
    """

    messages: Messages
    stream: ReplyStream

    async def __call__(self, *, user: User, chatroom_id: ChatroomId, message_id: MessageId) -> Message:
        message = await self.messages.cancel(message_id, chatroom_id, user.id)
        if message.status.is_final:
            await self.stream.wake(message_id)
        return message


@dataclass(frozen=True, slots=True)
class RegenerateMessage:
    """Have a message that has ended answered again, its last reply forgotten. It counts as a message.

    With the caller's own `request_id`, repeating the request has no further effect, until another request queues
    the message again. Raises MessageNotEnded, and all that sending raises.
    """

    messages: Messages
    queue: JobQueue
    clock: Clock
    limits: Mapping[Tier, SendingLimits]
    plans: Mapping[Tier, ReplyPlan]

    async def __call__(
        self, *, user: User, chatroom_id: ChatroomId, message_id: MessageId, request_id: UUID | None = None
    ) -> Accepted:
        message = await self.messages.get(message_id, chatroom_id, user.id)
        now = self.clock.now()
        plan = self.plans[user.tier(now)]
        message = message.regenerated(
            at=now, max_output_tokens=plan.reply_tokens, thinking=plan.thinking, request_id=request_id
        )
        allowance = await self.messages.regenerate(message, limits=self.limits[user.tier(now)])
        await self.queue.notify([message_id])
        return Accepted(message, allowance)


@dataclass(frozen=True, slots=True)
class ContinueMessage:
    """Have a reply that was cut off continued from where it ends. It counts as a message.

    The reply stays as it is if that fails. With the caller's own `request_id`, repeating the request has no
    further effect, until another request queues the message again. Raises MessageNotEnded,
    MessageNotContinuable, and all that sending raises.
    """

    messages: Messages
    queue: JobQueue
    clock: Clock
    limits: Mapping[Tier, SendingLimits]
    plans: Mapping[Tier, ReplyPlan]

    async def __call__(
        self, *, user: User, chatroom_id: ChatroomId, message_id: MessageId, request_id: UUID | None = None
    ) -> Accepted:
        message = await self.messages.get(message_id, chatroom_id, user.id)
        now = self.clock.now()
        plan = self.plans[user.tier(now)]
        if not message.was_queued_by(request_id):
            message = message.continued(
                at=now, max_output_tokens=plan.reply_tokens, thinking=plan.thinking, request_id=request_id
            )
        allowance = await self.messages.continue_reply(message, limits=self.limits[user.tier(now)])
        await self.queue.notify([message_id])
        return Accepted(message, allowance)


@dataclass(frozen=True, slots=True)
class RequeueMessage:
    """For operators: have a failed message answered after all. The user does not pay for it again."""

    messages: MessageDesk
    queue: JobQueue

    async def __call__(self, *, message_id: MessageId) -> None:
        if not await self.messages.requeue(message_id):
            raise MessageNotFound("There is no failed message with this id.")
        await self.queue.notify([message_id])


@dataclass(frozen=True, slots=True)
class ListMessages:
    """For operators: the messages of all users in one state, newest first."""

    messages: MessageDesk

    async def __call__(self, *, status: MessageStatus, limit: int) -> list[Message]:
        return await self.messages.list_by_status(status, limit=limit)


@dataclass(frozen=True, slots=True)
class GetAllowance:
    """The user's use of today's allowance."""

    messages: Messages
    clock: Clock
    limits: Mapping[Tier, SendingLimits]

    async def __call__(self, *, user: User) -> Allowance:
        now = self.clock.now()
        return await self.messages.allowance(user.id, day=now.date(), total=self.limits[user.tier(now)].daily)
