"""What is made of what: one container for HTTP and worker, the only place that names adapters."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from dependency_injector import containers, providers

from adapters.otp_sender import ReplyOtpSender
from adapters.phone_numbers import LibPhoneNumbers
from adapters.postgres.accounts import PostgresOtpChallenges, PostgresSessions, PostgresUsers
from adapters.postgres.chat import PostgresChatrooms, PostgresMessages, PostgresModelBudget
from adapters.postgres.connection import Postgres, PostgresUnitOfWork
from adapters.postgres.idempotency import PostgresIdempotencyKeys
from adapters.redis.cache import RedisChatroomLists
from adapters.redis.connection import RedisConnection
from adapters.security import Argon2Hasher, JwtAccessTokens
from adapters.system import SystemClock, TimeOrderedIds
from adapters.taskiq import StreamBroker, TaskiqJobQueue
from application.accounts.otp import CheckOtp, SendOtp, VerifyOtp
from application.accounts.passwords import ChangePassword, ResetPassword, SetPassword
from application.accounts.sessions import Authenticate, LogIn, OpenSession
from application.accounts.signup import SignUp
from application.chat.asking import AskModel
from application.chat.breaker import Breaker
from application.chat.chatrooms import CreateChatroom, ListChatrooms, OpenChatroom
from application.chat.messages import GetAllowance, GetMessage, RequeueMessage, SendMessage
from application.chat.replies import GenerateReply, Leases, RecoverReplies, Suspects
from application.housekeeping import PurgeExpired
from application.ports.chat import LanguageModel
from application.ports.runtime import Resource
from domain.billing import SendingLimits, Tier
from domain.chat import RetryPolicy
from entrypoints.settings import Settings


def _otp_key(settings: Settings) -> bytes:
    """A key of its own for the codes, derived from the one secret there is."""
    return hmac.digest(settings.access_token_secret.get_secret_value().encode(), b"one-time codes", "sha256")


def _sending_limits(settings: Settings) -> dict[Tier, SendingLimits]:
    """The daily allowance is the product; the rest protects the service, and tests may switch it off."""
    on = settings.rate_limits == "on"
    return {
        Tier.BASIC: SendingLimits(
            daily=settings.free_daily_messages, in_flight=settings.basic_in_flight if on else None
        ),
        Tier.PRO: SendingLimits(
            in_flight=settings.pro_in_flight if on else None,
            per_minute=settings.pro_messages_per_minute if on else None,
        ),
    }


def _language_model(settings: Settings) -> LanguageModel:
    # Imported here: each SDK takes over a second and 65 MB, and only the worker asks.
    key, model, base_url = settings.gemini_api_key.get_secret_value(), settings.gemini_model, settings.gemini_base_url
    if settings.gemini_sdk == "google-generativeai":
        from adapters.gemini.google_generativeai import GoogleGenerativeai

        return GoogleGenerativeai(api_key=key, model=model, base_url=base_url)
    from adapters.gemini.google_genai import GoogleGenai

    return GoogleGenai(api_key=key, model=model, base_url=base_url)


class Container(containers.DeclarativeContainer):
    """Sync providers only: one asynchronous one would turn all that depend on it into futures."""

    settings = providers.Dependency(instance_of=Settings)

    clock = providers.Singleton(SystemClock)
    ids = providers.Singleton(TimeOrderedIds)
    mobile_numbers = providers.Singleton(LibPhoneNumbers, default_region=settings.provided.default_region)

    postgres = providers.Singleton(
        Postgres,
        settings.provided.database_url.get_secret_value.call(),
        pool=settings.provided.postgres_pool,
        acquire_seconds=settings.provided.postgres_acquire_seconds,
        statement_seconds=settings.provided.postgres_statement_seconds,
    )
    redis = providers.Singleton(
        RedisConnection,
        settings.provided.redis_url.get_secret_value.call(),
        command_seconds=settings.provided.redis_command_seconds,
    )
    broker = providers.Singleton(
        StreamBroker,
        settings.provided.redis_url.get_secret_value.call(),
        namespace=settings.provided.redis_namespace,
        command_seconds=settings.provided.redis_command_seconds,
    )

    unit_of_work = providers.Singleton(PostgresUnitOfWork)
    users = providers.Singleton(PostgresUsers)
    sessions = providers.Singleton(PostgresSessions)
    challenges = providers.Singleton(PostgresOtpChallenges)
    chatrooms = providers.Singleton(PostgresChatrooms)
    messages = providers.Singleton(PostgresMessages)
    chatroom_lists = providers.Singleton(RedisChatroomLists, redis, namespace=settings.provided.redis_namespace)
    queue = providers.Singleton(TaskiqJobQueue, broker)
    otp_sender = providers.Singleton(ReplyOtpSender)
    # Parameters after OWASP ASVS 5.0: 64 MiB and three passes for passwords, its floor for short-lived codes.
    password_hasher = providers.Singleton(Argon2Hasher, memory_mib=64, iterations=3)
    code_hasher = providers.Singleton(
        Argon2Hasher, memory_mib=46, iterations=1, key=providers.Callable(_otp_key, settings)
    )
    access_tokens = providers.Singleton(
        JwtAccessTokens,
        secret=settings.provided.access_token_secret.get_secret_value.call(),
        lifetime_seconds=settings.provided.access_token_seconds,
        clock=clock,
    )
    language_model = providers.Singleton(_language_model, settings)
    model_budget = providers.Singleton(PostgresModelBudget, settings.provided.gemini_max_rpm)
    idempotency_keys = providers.Singleton(PostgresIdempotencyKeys)
    sending_limits = providers.Callable(_sending_limits, settings)

    sign_up = providers.Singleton(SignUp, users=users, mobile_numbers=mobile_numbers, clock=clock, ids=ids)
    open_session = providers.Singleton(
        OpenSession, sessions=sessions, access_tokens=access_tokens, clock=clock, ids=ids
    )
    authenticate = providers.Singleton(Authenticate, sessions=sessions, access_tokens=access_tokens)
    log_in = providers.Singleton(
        LogIn,
        users=users,
        password_hasher=password_hasher,
        open_session=open_session,
        mobile_numbers=mobile_numbers,
    )
    send_otp = providers.Singleton(
        SendOtp,
        users=users,
        challenges=challenges,
        sender=otp_sender,
        code_hasher=code_hasher,
        mobile_numbers=mobile_numbers,
        clock=clock,
    )
    check_otp = providers.Singleton(CheckOtp, challenges=challenges, code_hasher=code_hasher, clock=clock)
    verify_otp = providers.Singleton(
        VerifyOtp,
        users=users,
        challenges=challenges,
        check_otp=check_otp,
        open_session=open_session,
        mobile_numbers=mobile_numbers,
        unit_of_work=unit_of_work,
    )
    set_password = providers.Singleton(
        SetPassword,
        users=users,
        sessions=sessions,
        challenges=challenges,
        password_hasher=password_hasher,
        clock=clock,
        unit_of_work=unit_of_work,
    )
    reset_password = providers.Singleton(
        ResetPassword, users=users, check_otp=check_otp, set_password=set_password, mobile_numbers=mobile_numbers
    )
    change_password = providers.Singleton(
        ChangePassword, check_otp=check_otp, set_password=set_password, password_hasher=password_hasher
    )

    create_chatroom = providers.Singleton(CreateChatroom, chatrooms=chatrooms, clock=clock, ids=ids)
    list_chatrooms = providers.Singleton(ListChatrooms, chatrooms=chatrooms, lists=chatroom_lists)
    open_chatroom = providers.Singleton(OpenChatroom, chatrooms=chatrooms)
    send_message = providers.Singleton(
        SendMessage,
        messages=messages,
        queue=queue,
        clock=clock,
        ids=ids,
        limits=sending_limits,
    )
    get_message = providers.Singleton(GetMessage, messages=messages)
    requeue_message = providers.Singleton(RequeueMessage, messages=messages, queue=queue)
    get_allowance = providers.Singleton(GetAllowance, messages=messages, clock=clock, limits=sending_limits)

    leases = providers.Singleton(Leases, messages, settings.provided.lease)
    retry_policy = providers.Singleton(
        RetryPolicy,
        max_attempts=settings.provided.max_attempts,
        max_age=providers.Callable(timedelta, minutes=settings.provided.max_message_minutes),
    )
    ask_model = providers.Singleton(
        AskModel,
        model=language_model,
        budget=model_budget,
        breaker=providers.Singleton(Breaker),
        clock=clock,
        first_token_seconds=settings.provided.first_token_seconds,
        reply_seconds=settings.provided.reply_seconds,
    )
    generate_reply = providers.Singleton(
        GenerateReply,
        messages=messages,
        ask_model=ask_model,
        queue=queue,
        leases=leases,
        clock=clock,
        policy=retry_policy,
        lease=settings.provided.lease,
        suspects=providers.Singleton(Suspects),
    )
    purge_expired = providers.Singleton(
        PurgeExpired,
        challenges=challenges,
        sessions=sessions,
        keys=idempotency_keys,
        clock=clock,
        session_lifetime=providers.Callable(timedelta, seconds=settings.provided.access_token_seconds),
    )
    recover_replies = providers.Singleton(RecoverReplies, messages=messages, queue=queue, quiet=settings.provided.lease)

    #: Started in this order, closed in reverse.
    resources = providers.List(postgres, redis, broker)
    #: What /ready and `check` look at.
    watched = providers.List(postgres, redis)


@asynccontextmanager
async def running(resources: list[Resource]) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for resource in resources:
            await resource.start()
            stack.push_async_callback(resource.close)
        yield
