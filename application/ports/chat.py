"""What the chat use cases need from the outside."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date, timedelta
from typing import NamedTuple, Protocol

from application.ports.runtime import Dependency, Resource
from domain.billing import Allowance, SendingLimits
from domain.chat.calls import ModelCall
from domain.chat.chatrooms import Chatroom
from domain.chat.conversation import Context, Conversation, ReplyChunk
from domain.chat.messages import Message, MessageStatus, MessageView, Outcome
from domain.chat.streams import START, ReplyPiece, StreamPosition
from domain.ids import ChatroomId, MessageId, UserId


class RoomMessages(NamedTuple):
    chatroom: Chatroom
    #: Newest first.
    messages: list[MessageView]


class Chatrooms(Protocol):
    """Ids are time-ordered, so order by id is order by creation, and an id is a page's cursor."""

    @abstractmethod
    async def add(self, chatroom: Chatroom) -> Chatroom:
        """Store the room and raise its owner's `chatrooms_version`, both or neither; returns what is stored.

        That is the earlier room if there is one with this id. Raises UserNotFound if the owner is gone.
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
        """Give it another name, which ends waiting for a title, or other instructions ("" is none); None keeps them.

        Raises its owner's `chatrooms_version` in the same step. Raises ChatroomNotFound.
        """

    @abstractmethod
    async def set_title(self, chatroom_id: ChatroomId, title: str) -> bool:
        """Name a room that waits for a title, and raise `chatrooms_version`; False if it does not wait any more."""

    @abstractmethod
    async def delete(self, chatroom_id: ChatroomId, user_id: UserId) -> list[MessageId]:
        """Remove the room with its messages; those that were unanswered are in flight no more, and are returned.

        Raises its owner's `chatrooms_version` in the same step. Raises ChatroomNotFound.
        """

    @abstractmethod
    async def list_for_user(self, user_id: UserId, *, limit: int, before: ChatroomId | None = None) -> list[Chatroom]:
        """The user's rooms, newest first, older than `before`."""

    @abstractmethod
    async def get_with_messages(
        self, chatroom_id: ChatroomId, user_id: UserId, *, limit: int, before: MessageId | None = None
    ) -> RoomMessages:
        """The room with its newest `limit` messages older than `before`, newest first.

        Raises ChatroomNotFound for absent rooms and for those of others alike.
        """


class Messages(Protocol):
    """Messages, as their users see them."""

    @abstractmethod
    async def accept(self, message: Message, *, limits: SendingLimits) -> Allowance:
        """Consume one message of the day's allowance and store the message, both or neither.

        What is unlimited is counted all the same. Atomic: however many try at once, no limit is
        passed. A message whose id is stored already is accepted again without effect. Raises
        ChatroomNotFound (absent or somebody else's), QuotaExceeded, TooManyInFlight or
        SendingTooFast, the first that applies; then nothing has changed.
        """

    @abstractmethod
    async def regenerate(self, message: Message, *, limits: SendingLimits) -> Allowance:
        """Queue a message that has ended anew: `accept` for one that is stored.

        `message` is as it is to be from now on; its `attempt` goes on from what is stored, and of
        the last reply nothing stays. Atomic: of many at once one is taken. If the `request_id` is the
        one that is stored, it has had its effect and has no other. Raises MessageNotFound,
        MessageNotEnded, or as `accept` does.
        """

    @abstractmethod
    async def continue_reply(self, message: Message, *, limits: SendingLimits) -> Allowance:
        """Queue a message to go on from the text that it has: `accept` for one whose reply was cut off.

        `message` is as `Message.continued` gives it; the text, and what is kept of it, are those that
        are stored. Atomic: of many at once one is taken. A `request_id` is as in `regenerate`. Raises
        MessageNotFound, MessageNotEnded, MessageNotContinuable, or as `accept` does.
        """

    @abstractmethod
    async def cancel(self, message_id: MessageId, chatroom_id: ChatroomId, user_id: UserId) -> Message:
        """End the message as cancelled if nobody answers it at the moment, else request it of who does.

        Ended before the model was asked, it gives the allowance back in the same step, if it is charged.
        A continued one ends as completed again, with what it had. Returns it as it is then: ended, or
        generating with `cancel_requested`. Raises MessageNotFound or MessageEnded.
        """

    @abstractmethod
    async def get(self, message_id: MessageId, chatroom_id: ChatroomId, user_id: UserId) -> Message:
        """Raises MessageNotFound unless it is in this room and the room is the user's."""

    @abstractmethod
    async def ended(self, message_ids: Sequence[MessageId]) -> set[MessageId]:
        """Those of them that have ended, or are gone."""

    @abstractmethod
    async def allowance(self, user_id: UserId, *, day: date, total: int | None) -> Allowance:
        """What the user has used of this day, or of a later one if a message has already begun it."""


class MessageQueue(Protocol):
    """Messages as the workers' queue. A job in Redis is only a hint to look here.

    Leases and due times run by the store's own clock, so they are given as durations; the clocks
    of the workers do not matter. A message is claimable when it is queued and due, or generating
    with an expired lease. `domain.chat.queue` has the rules.
    """

    @abstractmethod
    async def claim(self, message_id: MessageId, *, lease: timedelta, alone: bool = False) -> Message | None:
        """Take the message for one attempt: generating, attempt + 1, leased from now on.

        A claim on an expired lease also counts a death, and books the call of who died as lost. None if
        it is not claimable, as for every other caller at the same time. A message that the next death
        would end is claimable only by who promises to work on no other such message `alone`.
        """

    @abstractmethod
    async def is_suspect(self, message_id: MessageId) -> bool:
        """Whether the message is claimable, but only `alone`."""

    @abstractmethod
    async def context(self, message: Message, *, limit: int) -> Context:
        """What the room is set to, and its newest `limit` messages with a reply older than this one."""

    @abstractmethod
    async def extend(self, held: Sequence[tuple[MessageId, int]], *, lease: timedelta) -> set[MessageId]:
        """Renew the leases of (id, attempt) pairs; returns those that are still held."""

    @abstractmethod
    async def cancel_requested(self) -> set[MessageId]:
        """All that are generating and that somebody wants to end."""

    @abstractmethod
    async def finish(
        self, message_id: MessageId, attempt: int, outcome: Outcome, *, call: ModelCall | None = None
    ) -> bool:
        """Write the outcome if this attempt still holds the message; False does not change it.

        Ending as `failed`, or as `cancelled` before the model was asked, gives the allowance back in the
        same step, and only if it is charged: once. Of the outcomes of a day that are an empty cut only
        the first one does. What is stored of a message that is continued is its outcome `in_all`.

        The attempt's call is booked in the same step, as `book` does, also if the message is not held any more.
        """

    @abstractmethod
    async def retry(
        self, message_id: MessageId, attempt: int, *, delay: timedelta, call: ModelCall | None = None
    ) -> bool:
        """After a failure: back to queued, due after `delay`, if this attempt still holds the message.

        One that is to be cancelled is due at once: who claims it next ends it. The call is booked as by `finish`.
        """

    @abstractmethod
    async def release(
        self, message_id: MessageId, attempt: int, *, delay: timedelta = timedelta(), call: ModelCall | None = None
    ) -> bool:
        """Give an unfinished message back: queued and due after `delay`, not counted as a failure.

        The call is booked as by `finish`.
        """

    @abstractmethod
    async def book(self, call: ModelCall) -> None:
        """Enter a call into the books, once, and add a reply's tokens to the user's of its day.

        One that is booked as lost, because whoever made it was taken for dead, is booked anew.
        """

    @abstractmethod
    async def take_expired(self, *, limit: int, notified_before: timedelta) -> list[MessageId]:
        """Messages whose lease has expired, last notified of at least `notified_before` ago, the longest expired first.

        Callers at the same time get different ones, and nobody waits for anybody.
        """

    @abstractmethod
    async def take_unnotified(self, *, limit: int, notified_before: timedelta) -> list[MessageId]:
        """Queued and due messages, last notified of at least `notified_before` ago, oldest first.

        They count as notified from now on; the longer a message has waited, the rarer it is returned.
        Callers at the same time get different ones, and nobody waits for anybody.
        """


class MessageDesk(Protocol):
    """Messages, as operators handle them."""

    @abstractmethod
    async def requeue(self, message_id: MessageId) -> bool:
        """Queue a failed message anew, as if it had just been sent, but uncharged. False if it is not failed."""

    @abstractmethod
    async def list_by_status(self, status: MessageStatus, *, limit: int) -> list[Message]:
        """The messages of all users in this state, newest first, for operators."""


class ChatroomLists(Protocol):
    """A cache of the first page of a user's room list, at most one entry a user.

    The entry has the version that it is of. The current one comes from the database with every authenticated
    request, so a changed list is never served old, also when the cache was away during the change.
    """

    @abstractmethod
    async def get(self, user_id: UserId, version: int) -> list[Chatroom] | None:
        """None when it is not there, or of another version. Raises RedisUnavailable within 500 ms."""

    @abstractmethod
    async def put(self, user_id: UserId, version: int, rooms: list[Chatroom]) -> None:
        """In place of an earlier one. A list that is too large is not kept. Raises RedisUnavailable within 500 ms."""


class ModelBudget(Protocol):
    """Calls of the model a minute, for all workers together."""

    @abstractmethod
    async def reserve(self, *, within: float) -> float | None:
        """Seconds until a call may be made, which is then counted; None if that would be more than `within`."""


class ModelSetup(Protocol):
    """Whether the model takes the deployment's key, for all processes to know."""

    @abstractmethod
    async def report(self, refused_for: str | None) -> None:
        """Why it is refused, in Google's word, or None if it is not. The last report holds."""

    @abstractmethod
    async def refused_for(self) -> str | None:
        """The last report; None without one."""


class LanguageModel(Resource, Dependency, Protocol):
    """The model. Starting it loads what it needs; a stream on one that was not started starts it."""

    @abstractmethod
    def stream(self, conversation: Conversation) -> AsyncGenerator[ReplyChunk, None]:
        """The reply, piece by piece, as the model writes it; any chunk, be it empty, is a sign of life.

        One request, never repeated by the adapter, with one exception: a request that is refused while it says how
        much to think is sent again without the level and, if need be, without anything about thinking. What was
        taken in the end is remembered for that level. Nothing of a refused request is billed.

        Closing the iterator, or cancelling the task, closes the connection. Thoughts are chunks of their own and no
        part of the text. Usage that was reported has been yielded before anything is raised. Ends after a chunk with
        a finish reason; whatever else happens is raised as a ModelError: ModelUnavailable (network, 408, 500, 502,
        504, a stream cut short), ModelOverloaded (499, 503), ModelRateLimited, ModelQuotaExhausted,
        ModelNotConfigured (key, project, model's name), ModelRejectedRequest, ReplyBlocked, ReplyEmpty (nothing but
        white space, with the finish reason, or NO_CANDIDATES).
        """

    @abstractmethod
    async def check(self) -> None:
        """Return within two seconds if the model is there for this key, asking it nothing that is billed.

        Raises as `stream` does. It needs no start.
        """


class ReplyWriter(Protocol):
    """One attempt's reply on its way to whoever follows it."""

    @abstractmethod
    def add(self, text: str) -> None:
        """Send this piece: the first one at once, later ones with the next flush, at most 50 ms from now."""

    @abstractmethod
    def thought(self, text: str) -> None:
        """Send this piece of the model's thoughts with the next flush, at best.

        It is not kept and moves no position: readers that are connected and miss no text before it get it, ahead
        of any text that is added after it. Of what an outage holds up only the beginning is kept.
        """

    @abstractmethod
    async def close(self) -> None:
        """Send what is left; nothing can be added any more. Never raises, and waits 500 ms at most."""


class ReplyReader(Protocol):
    @abstractmethod
    async def read(self) -> Sequence[ReplyPiece]:
        """The next pieces, as soon as there are any; none after `ReplyStream.wake`, all before it having been read.

        In order, none missing and none twice: a piece begins where the one before it has ended, or
        begins a later attempt. Only thoughts may be missing; they are always of the attempt that was begun
        last. A reader that falls behind costs no more memory than any other.
        While the stream is away this waits; so have it woken from time to time and ask the store.
        """

    @abstractmethod
    def wake(self) -> None:
        """Have this reader's running, or else its next, `read` return without pieces."""


class ReplyStream(Resource, Protocol):
    """Replies while they are written, for readers in any process.

    It may be away or lose everything: `Messages` has the whole reply in the end.
    """

    @abstractmethod
    def write(self, message_id: MessageId, attempt: int, *, kept: int = 0) -> ReplyWriter:
        """Begin an attempt, for all readers. Nothing of an earlier attempt reaches a reader after it.

        It goes on after the first `kept` characters of the reply, which are not in the stream.
        """

    @abstractmethod
    def follow(
        self, message_id: MessageId, *, after: StreamPosition = START
    ) -> AbstractAsyncContextManager[ReplyReader]:
        """Read what comes after that position, be it written already or yet to come.

        What is written is kept for ten minutes after the last piece.
        """

    @abstractmethod
    async def wake(self, message_id: MessageId) -> None:
        """Tell all who follow the message, in whatever process, to look at the store. Never raises."""
