"""Wires the product: one container for HTTP and worker. Only this file and builders.py name adapters."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TypeVar

from dependency_injector import containers, providers

from adapters.phone_numbers import LibPhoneNumbers
from adapters.postgres.accounts import (
    PostgresGuessLimits,
    PostgresOtpChallenges,
    PostgresOtpSendLimits,
    PostgresSessions,
    PostgresUsers,
)
from adapters.postgres.billing import PostgresBillingAccounts
from adapters.postgres.budget import PostgresModelBudget
from adapters.postgres.chat import PostgresMessages
from adapters.postgres.chatrooms import PostgresChatrooms
from adapters.postgres.clock import PostgresClock
from adapters.postgres.database import Postgres, PostgresUnitOfWork
from adapters.postgres.history import PostgresMessageHistory
from adapters.postgres.idempotency import PostgresIdempotencyKeys
from adapters.postgres.setup import PostgresModelSetup
from adapters.redis.cache import RedisChatroomLists
from adapters.redis.connection import RedisConnection
from adapters.redis.rate_limiter import RedisRateLimiter
from adapters.redis.reply_stream import RedisReplyStream
from adapters.security import (
    Argon2Hasher,
    HmacNumberDigests,
    HmacRefreshTokens,
    JwtAccessTokens,
    ZxcvbnCommonPasswords,
)
from adapters.system import SystemClock, TimeOrderedIds
from adapters.taskiq.sending import GENERATE_REPLY, SYNC_SUBSCRIPTIONS, JobSender, TaskiqJobQueue
from application.accounts.otp import CheckOtp, ConsumeOtp, SendOtp, VerifyOtp
from application.accounts.passwords import ChangePassword, ProveCaller, ResetPassword, SetPassword
from application.accounts.profile import DeleteUser, RenameUser
from application.accounts.sessions import (
    Authenticate,
    EndOtherSessions,
    EndSession,
    ListSessions,
    LogIn,
    MatchPassword,
    OpenSession,
    RecogniseDevice,
    RefreshSession,
    SessionWatch,
)
from application.accounts.signup import SignUp
from application.accounts.unlocking import UnlockNumber
from application.billing.calls import PaymentCalls
from application.billing.subscriptions import GetSubscription, OpenPortal, UpgradeTier
from application.billing.syncing import ReconcileAll, ReconcileUser, ResumeSyncs, SyncSubscriptions
from application.billing.webhooks import AcceptWebhookEvent
from application.chat.breaker import Breaker
from application.chat.chatrooms import ChangeChatroom, CreateChatroom, DeleteChatroom, ListChatrooms, OpenChatroom
from application.chat.leases import Leases
from application.chat.messages import (
    CancelMessage,
    ContinueMessage,
    GetAllowance,
    GetMessage,
    ListMessages,
    RegenerateMessage,
    RequeueMessage,
    SendMessage,
)
from application.chat.model_calls import CallModel
from application.chat.quarantine import QuarantineSlot
from application.chat.replies import GenerateReply, RecoverReplies
from application.chat.setup import WatchSetup
from application.chat.streaming import AwaitReply, ReplyWatch, StreamReply
from application.chat.titles import SuggestTitle
from application.housekeeping import EraseDeleted, PurgeExpired
from application.ports.runtime import Resource
from application.rate_limiting import FallbackRateLimiter, ProcessRateLimiter
from application.readiness import CheckReadiness, Shutdown
from domain.chat.queue import Worker
from domain.chat.retries import RetryPolicy
from entrypoints import builders
from entrypoints.settings import Settings
from entrypoints.wiring import Wiring

T = TypeVar("T")

_wiring = Wiring()
single, wired = _wiring.single, _wiring.wired


class Container(containers.DeclarativeContainer):
    """Only synchronous providers: an asynchronous one would turn all its dependents into futures."""

    settings = providers.Dependency(instance_of=Settings)
    _wiring.add(Settings, settings)
    _checkouts_after = providers.Callable(timedelta, minutes=settings.provided.billing.checkout_reconcile_minutes)
    _most_chatrooms = providers.Callable(builders.most_chatrooms, settings)
    _payment_rate = providers.Callable(builders.payment_rate, settings)
    _payment_timeout = providers.Callable(builders.payment_timeout, settings)

    host_clock = providers.Singleton(SystemClock)
    database_clock = providers.Singleton(PostgresClock, host_clock)
    clock = single(builders.shared_clock, database_clock)
    ids = single(TimeOrderedIds, clock)
    mobile_numbers = single(LibPhoneNumbers, default_region=settings.provided.login.default_region)

    postgres = single(
        Postgres,
        settings.provided.postgres.url.get_secret_value.call(),
        pool=settings.provided.postgres.pool,
        acquire_seconds=settings.provided.postgres.acquire_seconds,
        statement_seconds=settings.provided.postgres.statement_seconds,
        pooler=settings.provided.postgres.has_pooler,
    )
    redis = single(
        RedisConnection,
        settings.provided.redis.url.get_secret_value.call(),
        namespace=settings.provided.redis.namespace,
        command_seconds=settings.provided.redis.command_seconds,
    )
    job_sender = single(
        JobSender,
        settings.provided.redis.url.get_secret_value.call(),
        namespace=settings.provided.redis.namespace,
        command_seconds=settings.provided.redis.command_seconds,
    )

    unit_of_work = single(PostgresUnitOfWork)
    number_digests = single(HmacNumberDigests, key=providers.Callable(builders.key_for, settings, "mobile numbers"))
    users = single(PostgresUsers, number_digests)
    sessions = single(PostgresSessions)
    challenges = single(PostgresOtpChallenges)
    chatrooms = single(PostgresChatrooms)
    messages = single(PostgresMessages)
    message_history = single(PostgresMessageHistory, clock)
    chatroom_lists = single(RedisChatroomLists, redis, namespace=settings.provided.redis.namespace)
    process_rate_limiter = providers.Singleton(ProcessRateLimiter, clock)
    rate_limiter = single(
        FallbackRateLimiter,
        providers.Singleton(
            RedisRateLimiter,
            redis,
            namespace=settings.provided.redis.namespace,
            key=providers.Callable(builders.key_for, settings, "rate limits"),
        ),
        process_rate_limiter,
    )
    queue = single(TaskiqJobQueue, job_sender, GENERATE_REPLY)
    reply_stream = single(
        RedisReplyStream,
        settings.provided.redis.url.get_secret_value.call(),
        namespace=settings.provided.redis.namespace,
        command_seconds=settings.provided.redis.command_seconds,
    )
    otp_sender = single(builders.otp_sender, settings)
    guess_limits = single(PostgresGuessLimits, number_digests)
    send_limits = single(PostgresOtpSendLimits, number_digests)
    common_passwords = single(ZxcvbnCommonPasswords)
    refresh_tokens = single(HmacRefreshTokens, key=providers.Callable(builders.key_for, settings, "refresh tokens"))
    # Parameters follow OWASP ASVS 5.0: 64 MiB and three passes for passwords, its minimum for short-lived codes.
    password_hasher = single(Argon2Hasher, memory_mib=64, iterations=3, threads=min(4, os.cpu_count() or 1))
    code_hasher = single(
        Argon2Hasher, memory_mib=46, iterations=1, key=providers.Callable(builders.key_for, settings, "one-time codes")
    )
    access_tokens = single(
        JwtAccessTokens,
        secrets=settings.provided.login.access_token_secrets,
        lifetime_seconds=settings.provided.login.access_token_seconds,
        clock=clock,
    )
    language_model = single(builders.language_model, settings)
    model_setup = single(PostgresModelSetup)
    model_budget = single(PostgresModelBudget, settings.provided.gemini.max_rpm)
    idempotency_keys = single(PostgresIdempotencyKeys)
    idempotency_hash_key = providers.Callable(builders.key_for, settings, "idempotency keys")
    billing_accounts = single(PostgresBillingAccounts, unit_of_work)
    payment_gateway = single(builders.payment_gateway, settings)
    syncs = single(TaskiqJobQueue, job_sender, SYNC_SUBSCRIPTIONS)
    sending_limits = providers.Callable(builders.sending_limits, settings)
    reply_plans = providers.Callable(builders.reply_plans, settings)

    sign_up = wired(SignUp)
    recognise_device = wired(RecogniseDevice)
    match_password = wired(MatchPassword, password_hasher=password_hasher)
    open_session = wired(OpenSession)
    refresh_session = wired(RefreshSession)
    list_sessions = wired(ListSessions)
    end_session = wired(EndSession)
    end_other_sessions = wired(EndOtherSessions)
    rename_user = wired(RenameUser)
    authenticate = wired(Authenticate)
    session_watch = single(SessionWatch, sessions)
    log_in = wired(LogIn)
    send_otp = wired(
        SendOtp,
        is_limited=settings.provided.limits.enabled,
        daily=settings.provided.login.otp_daily,
        countries=settings.provided.login.otp_countries,
        code_hasher=code_hasher,
    )
    check_otp = wired(CheckOtp, code_hasher=code_hasher)
    consume_otp = wired(ConsumeOtp)
    verify_otp = wired(VerifyOtp)
    set_password = wired(SetPassword, password_hasher=password_hasher)
    reset_password = wired(ResetPassword)
    prove_caller = wired(ProveCaller)
    change_password = wired(ChangePassword)
    payment_calls = wired(PaymentCalls, rate=_payment_rate)
    delete_user = wired(DeleteUser, timeout=_payment_timeout)
    unlock_number = wired(UnlockNumber)

    create_chatroom = wired(CreateChatroom, limit=_most_chatrooms)
    list_chatrooms = wired(ListChatrooms)
    open_chatroom = wired(OpenChatroom)
    change_chatroom = wired(ChangeChatroom)
    delete_chatroom = wired(DeleteChatroom)
    send_message = wired(SendMessage, queue=queue, limits=sending_limits, plans=reply_plans)
    get_message = wired(GetMessage)
    cancel_message = wired(CancelMessage)
    regenerate_message = wired(RegenerateMessage, queue=queue, limits=sending_limits, plans=reply_plans)
    continue_message = wired(ContinueMessage, queue=queue, limits=sending_limits, plans=reply_plans)
    reply_watch = single(ReplyWatch, messages)
    stream_reply = wired(StreamReply)
    await_reply = wired(AwaitReply)
    requeue_message = wired(RequeueMessage, queue=queue)
    list_messages = wired(ListMessages)
    get_allowance = wired(GetAllowance, limits=sending_limits)

    upgrade_tier = wired(UpgradeTier, recheck_after=_checkouts_after, timeout=_payment_timeout)
    open_portal = wired(OpenPortal)
    get_subscription = wired(GetSubscription, prices=settings.provided.stripe.pro_prices)
    accept_webhook_event = wired(AcceptWebhookEvent, queue=syncs)
    sync_subscriptions = wired(
        SyncSubscriptions,
        prices=settings.provided.stripe.pro_prices,
        checkouts_after=_checkouts_after,
        subscriptions_after=providers.Callable(timedelta, hours=settings.provided.billing.subscription_reconcile_hours),
    )
    resume_syncs = wired(ResumeSyncs, queue=syncs, notified_before=settings.provided.worker.lease)
    reconcile_user = wired(ReconcileUser)
    reconcile_all = wired(ReconcileAll, notified_before=settings.provided.worker.lease)

    #: This process, as a worker.
    worker = single(Worker, id=ids.provided.new.call(), lease=settings.provided.worker.lease)
    leases = single(Leases, messages, worker)
    retry_policy = single(
        RetryPolicy,
        max_attempts=settings.provided.worker.max_attempts,
        max_age=providers.Callable(timedelta, minutes=settings.provided.worker.max_message_minutes),
    )
    watch_setup = single(WatchSetup, language_model, model_setup, clock)
    call_model = wired(
        CallModel,
        name=settings.provided.gemini.model,
        breaker=providers.Singleton(Breaker),
        first_token_seconds=settings.provided.worker.first_token_seconds,
        silence_seconds=settings.provided.worker.silence_seconds,
        reply_seconds=settings.provided.worker.reply_seconds,
    )
    suggest_title = wired(
        SuggestTitle,
        thinking=settings.provided.replies.title_thinking,
        thought_tokens=settings.provided.replies.thought_tokens,
    )
    generate_reply = wired(
        GenerateReply,
        queue=queue,
        quarantine=providers.Singleton(QuarantineSlot),
        thought_tokens=settings.provided.replies.thought_tokens,
        instructions=settings.provided.replies.system_instruction,
    )
    purge_expired = wired(PurgeExpired, messages_kept=settings.provided.worker.messages_kept)
    erase_deleted = wired(EraseDeleted)
    recover_replies = wired(RecoverReplies, queue=queue, renotify_after=settings.provided.worker.lease)

    #: Started in this order, closed in reverse.
    resources = providers.List(postgres, database_clock, redis, job_sender, reply_stream)
    #: Checked by /ready and by the command `check`.
    watched = providers.List(postgres, redis)
    shutdown = single(Shutdown)
    check_readiness = wired(CheckReadiness, dependencies=watched)


def provider_of(container: Container, kind: type[T]) -> Callable[[], T]:
    """The container's only provider of this type or of an implementation of it."""
    provider = _wiring.provider_of(kind)
    name = next(name for name, known in Container.providers.items() if known is provider)
    found: Callable[[], T] = container.providers[name]
    return found


@asynccontextmanager
async def running(resources: list[Resource]) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for resource in resources:
            await resource.start()
            stack.push_async_callback(resource.close)
        yield
