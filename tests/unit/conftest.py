"""The production wiring with everything outside the process replaced by adapters/memory."""

from __future__ import annotations

import secrets

import pytest
from dependency_injector import providers

from adapters.memory.accounts import (
    MemoryGuessLimits,
    MemoryOtpChallenges,
    MemoryOtpSender,
    MemoryOtpSendLimits,
    MemorySessions,
    MemoryUsers,
    PlainHasher,
)
from adapters.memory.billing import MemoryBillingAccounts, MemoryPaymentGateway
from adapters.memory.chat import MemoryMessages
from adapters.memory.chatrooms import MemoryChatroomLists, MemoryChatrooms
from adapters.memory.idempotency import MemoryIdempotencyKeys
from adapters.memory.language_model import MemoryModelBudget, MemoryModelSetup, ScriptedLanguageModel
from adapters.memory.reply_stream import MemoryReplyStream
from adapters.memory.runtime import MemoryClock, MemoryJobQueue
from adapters.memory.store import MemoryUnitOfWork
from application.rate_limiting import ProcessRateLimiter
from domain.accounts import MobileNumber, User
from domain.chat.chatrooms import Chatroom
from domain.chat.messages import Message
from entrypoints.container import Container
from entrypoints.settings import Settings

ANN = "+919876543210"


class World:
    """One product in memory, and what a test looks at from behind. Limits are off unless a test asks for them."""

    def __init__(self, messages: type[MemoryMessages] = MemoryMessages, /, **settings: str) -> None:
        self.clock = MemoryClock()
        self.users = MemoryUsers()
        self.sessions = MemorySessions(self.users)
        self.challenges = MemoryOtpChallenges()
        self.guess_limits = MemoryGuessLimits()
        self.send_limits = MemoryOtpSendLimits()
        self.messages = messages(self.clock)
        self.chatrooms = MemoryChatrooms(self.users, self.messages)
        self.lists = MemoryChatroomLists()
        self.queue = MemoryJobQueue()
        self.model = ScriptedLanguageModel()
        self.setup = MemoryModelSetup()
        self.stream = MemoryReplyStream()
        self.keys = MemoryIdempotencyKeys(self.clock)
        self.billing = MemoryBillingAccounts(self.users, self.clock)
        self.gateway = MemoryPaymentGateway(self.clock)
        self.syncs = MemoryJobQueue()
        given = Settings.from_environment(
            {"ACCESS_TOKEN_SECRET": secrets.token_hex(32), "RATE_LIMITS": "off", **settings}
        )
        self.container = Container(settings=given)
        self.replace(
            clock=self.clock,
            users=self.users,
            sessions=self.sessions,
            challenges=self.challenges,
            guess_limits=self.guess_limits,
            send_limits=self.send_limits,
            messages=self.messages,
            message_history=self.messages,
            chatrooms=self.chatrooms,
            chatroom_lists=self.lists,
            queue=self.queue,
            language_model=self.model,
            reply_stream=self.stream,
            model_setup=self.setup,
            model_budget=MemoryModelBudget(self.clock, given.gemini.max_rpm),
            idempotency_keys=self.keys,
            billing_accounts=self.billing,
            payment_gateway=self.gateway,
            rate_limiter=ProcessRateLimiter(self.clock),
            syncs=self.syncs,
            unit_of_work=MemoryUnitOfWork(),
            password_hasher=PlainHasher(),
            code_hasher=PlainHasher(),
        )

    def replace(self, **parts: object) -> None:
        """Before anything that depends on them is asked for."""
        for name, part in parts.items():
            getattr(self.container, name).override(providers.Object(part))

    def deliver_codes(self) -> MemoryOtpSender:
        """To phones, as in production, not in replies."""
        sender = MemoryOtpSender()
        self.replace(otp_sender=sender)
        return sender

    async def user(self, mobile: str = ANN) -> User:
        return await self.container.sign_up()(mobile=mobile, name="Ann")

    async def now(self, user: User) -> User:
        found = await self.users.find_by_mobile(MobileNumber(user.mobile))
        assert found is not None
        return found

    async def room(self, user: User | None = None) -> Chatroom:
        return await self.container.create_chatroom()(user=user or await self.user(), name="Physics")

    async def sent(self, text: str = "Why is the sky blue?", room: Chatroom | None = None) -> Message:
        chatroom = room or await self.room()
        user = self.users.table.get(chatroom.user_id)
        assert user is not None
        message, _ = await self.container.send_message()(user=user, chatroom_id=chatroom.id, input=text)
        return message

    async def stored(self, message: Message) -> Message:
        return await self.messages.get(message.id, message.chatroom_id, message.user_id)

    async def used(self, message: Message) -> int:
        allowance = await self.messages.allowance(message.user_id, day=message.allowance_day, total=None)
        return allowance.used


@pytest.fixture
def world() -> World:
    return World()
