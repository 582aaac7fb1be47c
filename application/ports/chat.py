"""What the chat use cases need from outside."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date, datetime, timedelta
from typing import NamedTuple, Protocol

from application.ports.runtime import Dependency, Resource
from domain.billing import Allowance, SendingLimits
from domain.chat.calls import ModelCall
from domain.chat.chatrooms import Chatroom
from domain.chat.conversation import Context, Conversation, ReplyChunk
from domain.chat.messages import Message, MessageStatus, MessageView, Outcome
from domain.chat.queue import Worker
from domain.chat.streams import START, ReplyPiece, StreamPosition
from domain.ids import ChatroomId, MessageId, UserId


class RoomMessages(NamedTuple):
    chatroom: Chatroom
    #: Newest first.
    messages: list[MessageView]


class Chatrooms(Protocol):
    """Ids are time-ordered: sorting by id sorts by creation, and an id serves as a page's cursor."""

    @abstractmethod
    async def add(self, chatroom: Chatroom, *, limit: int | None = None) -> Chatroom:
        """Store the room and raise its owner's `chatrooms_version`, both or neither; returns the stored room.

        That is the earlier one if a room has this id already. Raises UserNotFound if the owner was deleted, and
        TooManyChatrooms if they have `limit` rooms, however many are added at once.
        """

    @abstractmethod
    async def change(
        self,
        chatroom_id: ChatroomId,
        user_id: UserId,
        *,
        name: str | None = None,
        instructions: str | None = None,
    ) -> Chatroom:
        """Set the name, which also ends waiting for a title, or the instructions ("" removes them); None keeps either.

        The owner's `chatrooms_version` grows in the same step. Raises ChatroomNotFound.
        """

    @abstractmethod
    async def set_title(self, chatroom_id: ChatroomId, title: str) -> bool:
        """Name a room that waits for a title, and raise `chatrooms_version`; False if it no longer waits."""

    @abstractmethod
    async def delete(self, chatroom_id: ChatroomId, user_id: UserId) -> list[MessageId]:
        """Remove the room and its messages. Returns the unanswered ones, which no longer count as in flight.

        The owner's `chatrooms_version` grows in the same step. Raises ChatroomNotFound.
        """

    @abstractmethod
    async def list_for_user(self, user_id: UserId, *, limit: int, before: ChatroomId | None = None) -> list[Chatroom]:
        """The user's rooms, newest first, older than `before`."""

    @abstractmethod
    async def get_with_messages(
        self, chatroom_id: ChatroomId, user_id: UserId, *, limit: int, before: MessageId | None = None
    ) -> RoomMessages:
        """The room with its newest `limit` messages older than `before`, newest first.

        Raises ChatroomNotFound, also for other users' rooms.
        """


class Messages(Protocol):
    """Messages, as their users see them."""

    @abstractmethod
    async def accept(self, message: Message, *, limits: SendingLimits) -> Allowance:
        """Consume one message of the day's allowance and store the message, both or neither.

        Unlimited users are counted, too. Atomic: concurrent calls never exceed a limit. Accepting a
        message whose id is stored already has no effect. Raises ChatroomNotFound (absent or another
        user's), QuotaExceeded, TooManyInFlight or SendingTooFast, the first that applies; then nothing
        has changed.
        """

    @abstractmethod
    async def regenerate(self, message: Message, *, limits: SendingLimits) -> Allowance:
        """Queue a message that has ended again: `accept` for a stored one.

        `message` is as `Message.regenerated` returns it; `attempt` continues from the stored one, and the
        last reply is removed. Atomic: of concurrent calls one takes effect. A `request_id` that is stored
        has had its effect and has no further one. Raises MessageNotFound, MessageNotEnded, or as `accept`.
        """

    @abstractmethod
    async def continue_reply(self, message: Message, *, limits: SendingLimits) -> Allowance:
        """Queue a message whose reply was cut off, to continue from its text: `accept` for a stored one.

        `message` is as `Message.continued` returns it, but the stored text counts. Atomic, and `request_id`
        works, as in `regenerate`. Raises MessageNotFound, MessageNotEnded, MessageNotContinuable, or as `accept`.
        """

    @abstractmethod
    async def cancel(self, message_id: MessageId, chatroom_id: ChatroomId, user_id: UserId) -> Message:
        """End the message as cancelled if no worker has it; else ask its worker to do so.

        If it ends before the model was called, a charged message is refunded in the same step. One that was
        being continued is completed again, with the text it had. Returns the message as it is then: ended, or
        generating with `cancel_requested`. Raises MessageNotFound or MessageEnded.
        """

    @abstractmethod
    async def get(self, message_id: MessageId, chatroom_id: ChatroomId, user_id: UserId) -> Message:
        """Raises MessageNotFound unless it is in this room and the room is the user's."""

    @abstractmethod
    async def ended(self, message_ids: Sequence[MessageId]) -> set[MessageId]:
        """Those of them that have ended or were deleted."""

    @abstractmethod
    async def allowance(self, user_id: UserId, *, day: date, total: int | None) -> Allowance:
        """The user's use of this day, or of a later day if a message has begun it already."""


class MessageQueue(Protocol):
    """Messages as the workers' queue. A job in Redis is only a hint to look here.

    A worker process has one lease, however many messages it has. Leases and due times run by the store's own clock,
    so they are given as durations; the clocks of the workers do not matter. A message is claimable when it is queued
    and due, or generating while the lease of its worker has expired. `domain.chat.queue` has the rules.
    """

    @abstractmethod
    async def claim(self, message_id: MessageId, *, worker: Worker, alone: bool = False) -> Message | None:
        """Take the message for one attempt of this worker: generating, attempt + 1.

        The worker's lease is begun if it has none or an expired one. A claim on a message whose worker's lease has
        expired also counts a death, and books the dead worker's call as lost. None if the
        message is not claimable, which it is for only one of concurrent callers. A message whose next death would
        be its last is claimable only `alone`, by a worker that has no other such message.
        """

    @abstractmethod
    async def is_suspect(self, message_id: MessageId) -> bool:
        """Whether the message is claimable, but only `alone`."""

    @abstractmethod
    async def context(self, message: Message, *, limit: int) -> Context:
        """The room's settings, and its newest `limit` messages with a reply that are older than this one."""

    @abstractmethod
    async def renew(self, worker: Worker, held: Sequence[tuple[MessageId, int]] = ()) -> set[MessageId]:
        """Renew the worker's lease, or begin it; returns those of the (id, attempt) pairs that it still has.

        What has expired is still the worker's own as long as nobody has taken it. Once this has returned, nobody takes
        what it returned before the lease expires again.
        """

    @abstractmethod
    async def forget_workers(self, *, expired_for: timedelta) -> None:
        """Forget workers whose leases expired at least that time ago. What they had stays claimable."""

    @abstractmethod
    async def cancel_requested(self) -> set[MessageId]:
        """All messages that are generating and whose end was requested."""

    @abstractmethod
    async def finish(
        self, message_id: MessageId, attempt: int, outcome: Outcome, *, call: ModelCall | None = None
    ) -> bool:
        """Write the outcome if this attempt still holds the message; False changes nothing.

        A charged message that ends as `failed`, or as `cancelled` before the model was called, is refunded in
        the same step, once. Of a day's empty cuts only the first is. For a continued message the outcome is
        stored as `Message.in_all` returns it.

        The attempt's call is booked in the same step, as by `book`, even if the message is no longer held.
        """

    @abstractmethod
    async def retry(
        self, message_id: MessageId, attempt: int, *, delay: timedelta, call: ModelCall | None = None
    ) -> bool:
        """After a failure: back to queued, due after `delay`, if this attempt still holds the message.

        If its end was requested, it is due at once: the next claim ends it. The call is booked as by `finish`.
        """

    @abstractmethod
    async def release(
        self, message_id: MessageId, attempt: int, *, delay: timedelta = timedelta(), call: ModelCall | None = None
    ) -> bool:
        """Return an unfinished message: queued, due after `delay`, not counted as a failure.

        The call is booked as by `finish`.
        """

    @abstractmethod
    async def book(self, call: ModelCall) -> None:
        """Book a call, once, and add a reply's tokens to the user's usage of its day.

        A call that was booked as lost, because its worker seemed dead, is replaced.
        """

    @abstractmethod
    async def take_expired(self, *, limit: int, notified_before: timedelta) -> list[MessageId]:
        """Messages whose worker's lease has expired, last notified of at least `notified_before` ago.

        The longest expired come first. Concurrent callers get different messages and do not wait for each other.
        """

    @abstractmethod
    async def take_unnotified(self, *, limit: int, notified_before: timedelta) -> list[MessageId]:
        """Queued and due messages, last notified of at least `notified_before` ago, oldest first.

        They count as notified from now on; the longer a message has waited, the rarer it is returned.
        Concurrent callers get different messages and do not wait for each other.
        """


class MessageHistory(Protocol):
    """What becomes of old messages. Any process may call this, at any time."""

    @abstractmethod
    async def prepare(self) -> None:
        """Make the places of the coming months. Messages are stored without them, too."""

    @abstractmethod
    async def remove_before(self, time: datetime) -> None:
        """Remove all messages of the months before the one that `time` is in, by UTC.

        One that was queued again does not count as in flight any more.
        """

    @abstractmethod
    async def erase_deleted(self) -> bool:
        """Erase a bounded number of messages whose rooms were deleted. False if there are none."""


class MessageDesk(Protocol):
    """Messages, as operators handle them."""

    @abstractmethod
    async def requeue(self, message_id: MessageId) -> bool:
        """Queue a failed message as if it had just been sent, but without charge. False if it has not failed."""

    @abstractmethod
    async def list_by_status(self, status: MessageStatus, *, limit: int) -> list[Message]:
        """All users' messages in this state, newest first."""


class ChatroomLists(Protocol):
    """A cache of the first page of each user's room list.

    An entry has a version. The current version comes from the database with every authenticated request, so a
    changed list is never served stale, even if the cache was unavailable during the change.
    """

    @abstractmethod
    async def get(self, user_id: UserId, version: int) -> list[Chatroom] | None:
        """None if there is none of this version. Raises RedisUnavailable within 500 ms."""

    @abstractmethod
    async def put(self, user_id: UserId, version: int, rooms: list[Chatroom]) -> None:
        """Replace the entry. A list that is too large is not kept. Raises RedisUnavailable within 500 ms."""


class ModelBudget(Protocol):
    """Calls of the model per minute, for all workers together."""

    @abstractmethod
    async def reserve(self, *, within: float) -> float | None:
        """Count a call, and return the seconds until it may be made; None if that would be more than `within`."""


class ModelSetup(Protocol):
    """Whether the model accepts the deployment's key, shared by all processes."""

    @abstractmethod
    async def report(self, refused_for: str | None) -> None:
        """Why the key is refused, in Google's words, or None if it is not. The last report holds."""

    @abstractmethod
    async def refused_for(self) -> str | None:
        """The last report, if any."""


class LanguageModel(Resource, Dependency, Protocol):
    """The model. Starting it loads what it needs; the first stream starts it if nothing else did."""

    @abstractmethod
    def stream(self, conversation: Conversation) -> AsyncGenerator[ReplyChunk, None]:
        """The reply, chunk by chunk, as the model writes it. Any chunk, even an empty one, is a sign of life.

        The adapter sends one request and never repeats it, with one exception: a request that is refused while it
        states how much to think is sent again without the level and, if necessary, without anything about thinking.
        What was accepted is remembered for that level. A refused request costs nothing.

        Closing the iterator, or cancelling the task, closes the connection. Thoughts come in separate chunks and are
        not part of the text. Reported usage is yielded before anything is raised. The stream ends after a chunk with
        a finish reason; anything else is raised as a ModelError: ModelUnavailable (network, 408, 500, 502,
        504, a stream cut short), ModelOverloaded (499, 503), ModelRateLimited, ModelQuotaExhausted,
        ModelNotConfigured (key, project, model's name), ModelRejectedRequest, ReplyBlocked, ReplyEmpty (nothing but
        white space, with the finish reason, or NO_CANDIDATES).
        """

    @abstractmethod
    async def check(self) -> None:
        """Return within two seconds if the model accepts this key, at no cost.

        Raises as `stream` does. Needs no start.
        """


class ReplyWriter(Protocol):
    """Sends one attempt's reply to its readers."""

    @abstractmethod
    def add(self, text: str) -> None:
        """Send a piece: the first one at once, later ones with the next flush, within 50 ms."""

    @abstractmethod
    def thought(self, text: str) -> None:
        """Send a piece of the model's thoughts with the next flush, without guarantee.

        It is not stored and does not move the position. Connected readers that have all text before it get it, ahead
        of any text that is added after it. During an outage only the first thoughts are kept.
        """

    @abstractmethod
    async def close(self) -> None:
        """Send the rest; nothing can be added afterwards. Never raises, and waits at most 500 ms."""


class ReplyReader(Protocol):
    @abstractmethod
    async def read(self) -> Sequence[ReplyPiece]:
        """The next pieces, as soon as there are any; none after `ReplyStream.wake`, once all before it were read.

        In order, with no piece missing or repeated: each begins where the last one ended, or begins a later
        attempt. Only thoughts may be missing; they always belong to the latest attempt. A slow reader costs no more
        memory than any other. While the stream is unavailable this waits, so wake it regularly and check the store.
        """

    @abstractmethod
    def wake(self) -> None:
        """Make this reader's current `read`, or else its next one, return without pieces."""


class ReplyStream(Resource, Protocol):
    """Replies while they are written, for readers in any process.

    It may be unavailable or lose everything: `Messages` has the whole reply in the end.
    """

    @abstractmethod
    def write(self, message_id: MessageId, attempt: int, *, kept: int = 0) -> ReplyWriter:
        """Begin an attempt, for all readers. After it, no piece of an earlier attempt reaches a reader.

        It continues after the first `kept` characters of the reply, which are not in the stream.
        """

    @abstractmethod
    def follow(
        self, message_id: MessageId, *, after: StreamPosition = START
    ) -> AbstractAsyncContextManager[ReplyReader]:
        """Read everything after this position, whether written already or later.

        The stream keeps what was written for ten minutes after the last piece.
        """

    @abstractmethod
    async def wake(self, message_id: MessageId) -> None:
        """Make all readers of the message, in any process, check the store. Never raises."""
