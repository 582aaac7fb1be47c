"""What is made of what: one container for HTTP and worker, the only place that names adapters."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from dependency_injector import containers, providers

from adapters.no_payments import NoPayments
from adapters.otp_sender import ConsoleOtpSender, InBackground, ReplyOtpSender, TwilioOtpSender
from adapters.phone_numbers import LibPhoneNumbers
from adapters.postgres.accounts import (
    PostgresGuessBudgets,
    PostgresOtpChallenges,
    PostgresOtpSendings,
    PostgresSessions,
    PostgresUsers,
)
from adapters.postgres.billing import PostgresBillingAccounts
from adapters.postgres.budget import PostgresModelBudget
from adapters.postgres.chat import PostgresMessages
from adapters.postgres.chatrooms import PostgresChatrooms
from adapters.postgres.connection import Postgres, PostgresUnitOfWork
from adapters.postgres.idempotency import PostgresIdempotencyKeys
from adapters.redis.cache import RedisChatroomLists
from adapters.redis.connection import RedisConnection
from adapters.redis.rate_limiter import RedisRateLimiter
from adapters.redis.reply_stream import RedisReplyStream
from adapters.security import Argon2Hasher, HmacRefreshTokens, JwtAccessTokens, ZxcvbnCommonPasswords
from adapters.system import SystemClock, TimeOrderedIds
from adapters.taskiq import GENERATE_REPLY, READ_SUBSCRIPTIONS, StreamBroker, TaskiqJobQueue
from application.accounts.otp import CheckOtp, ConsumeOtp, SendOtp, VerifyOtp
from application.accounts.passwords import ChangePassword, ResetPassword, SetPassword
from application.accounts.profile import DeleteUser, RenameUser
from application.accounts.sessions import (
    Authenticate,
    EndOtherSessions,
    EndSession,
    ListSessions,
    LogIn,
    OpenSession,
    RefreshSession,
)
from application.accounts.signup import SignUp
from application.billing.subscriptions import GetSubscription, OpenPortal, UpgradeTier
from application.billing.webhooks import AcceptWebhookEvent, ReadSubscriptions, Reconcile, RecoverReadings
from application.chat.asking import AskModel
from application.chat.breaker import Breaker
from application.chat.chatrooms import ChangeChatroom, CreateChatroom, DeleteChatroom, ListChatrooms, OpenChatroom
from application.chat.messages import (
    CancelMessage,
    GetAllowance,
    GetMessage,
    RegenerateMessage,
    RequeueMessage,
    SendMessage,
)
from application.chat.replies import GenerateReply, Leases, RecoverReplies, Suspects
from application.chat.streaming import AwaitReply, ReplyWatch, StreamReply
from application.chat.titles import SuggestTitle
from application.housekeeping import PurgeExpired
from application.ports.accounts import OtpSender
from application.ports.billing import PaymentGateway
from application.ports.chat import LanguageModel
from application.ports.runtime import Resource
from domain.billing import SendingLimits, Tier
from domain.chat import RetryPolicy
from entrypoints.settings import Settings


def _otp_key(settings: Settings) -> bytes:
    """A key of its own for the codes, derived from the one secret there is."""
    return hmac.digest(settings.access_token_secret.get_secret_value().encode(), b"one-time codes", "sha256")


def _is_limited(settings: Settings) -> bool:
    return settings.rate_limits == "on"


def _refresh_key(settings: Settings) -> bytes:
    return hmac.digest(settings.access_token_secret.get_secret_value().encode(), b"refresh tokens", "sha256")


def _rate_key(settings: Settings) -> bytes:
    return hmac.digest(settings.access_token_secret.get_secret_value().encode(), b"rate limits", "sha256")


def _otp_sender(settings: Settings) -> OtpSender:
    match settings.otp_sender:
        case "twilio":
            sender = TwilioOtpSender(
                account=settings.twilio_account_sid,
                token=settings.twilio_auth_token.get_secret_value(),
                sender=settings.twilio_from,
                api_base=settings.twilio_api_base,
            )
            return InBackground(sender)
        case "console":
            return InBackground(ConsoleOtpSender())
        case "reply":
            return ReplyOtpSender()


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


def _payment_gateway(settings: Settings) -> PaymentGateway:
    # Imported here: not every deployment sells anything, and the SDK takes a quarter of a second.
    if not settings.stripe_secret_key.get_secret_value():
        return NoPayments()
    from adapters.stripe import CheckoutPage, StripeGateway

    home = settings.public_url
    return StripeGateway(
        key=settings.stripe_secret_key.get_secret_value(),
        webhook_secrets=settings.webhook_secrets,
        page=CheckoutPage(
            price=settings.stripe_price_id,
            prices=settings.pro_prices,
            success_url=settings.checkout_success_url or f"{home}/?checkout=success",
            cancel_url=settings.checkout_cancel_url or f"{home}/?checkout=cancelled",
            portal_return_url=settings.portal_return_url or home,
            promotion_codes=settings.stripe_promotion_codes == "on",
            automatic_tax=settings.stripe_automatic_tax == "on",
        ),
        api_base=settings.stripe_api_base,
        seconds=settings.stripe_seconds,
    )


class Container(containers.DeclarativeContainer):
    """Sync providers only: one asynchronous one would turn all that depend on it into futures."""

    settings = providers.Dependency(instance_of=Settings)
    _checkouts_after = providers.Callable(timedelta, minutes=settings.provided.checkout_reconcile_minutes)
    _patience = providers.Callable(lambda seconds: seconds * 0.8, settings.provided.request_seconds)

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
    rate_limiter = providers.Singleton(
        RedisRateLimiter,
        redis,
        namespace=settings.provided.redis_namespace,
        key=providers.Callable(_rate_key, settings),
    )
    queue = providers.Singleton(TaskiqJobQueue, broker, GENERATE_REPLY)
    reply_stream = providers.Singleton(
        RedisReplyStream,
        settings.provided.redis_url.get_secret_value.call(),
        namespace=settings.provided.redis_namespace,
        command_seconds=settings.provided.redis_command_seconds,
    )
    otp_sender = providers.Singleton(_otp_sender, settings)
    budgets = providers.Singleton(PostgresGuessBudgets)
    sendings = providers.Singleton(PostgresOtpSendings)
    common_passwords = providers.Singleton(ZxcvbnCommonPasswords)
    refresh_tokens = providers.Singleton(HmacRefreshTokens, key=providers.Callable(_refresh_key, settings))
    # Parameters after OWASP ASVS 5.0: 64 MiB and three passes for passwords, its floor for short-lived codes.
    password_hasher = providers.Singleton(Argon2Hasher, memory_mib=64, iterations=3)
    code_hasher = providers.Singleton(
        Argon2Hasher, memory_mib=46, iterations=1, key=providers.Callable(_otp_key, settings)
    )
    access_tokens = providers.Singleton(
        JwtAccessTokens,
        secrets=settings.provided.access_token_secrets,
        lifetime_seconds=settings.provided.access_token_seconds,
        clock=clock,
    )
    language_model = providers.Singleton(_language_model, settings)
    model_budget = providers.Singleton(PostgresModelBudget, settings.provided.gemini_max_rpm)
    idempotency_keys = providers.Singleton(PostgresIdempotencyKeys)
    billing_accounts = providers.Singleton(PostgresBillingAccounts, unit_of_work)
    payment_gateway = providers.Singleton(_payment_gateway, settings)
    readings = providers.Singleton(TaskiqJobQueue, broker, READ_SUBSCRIPTIONS)
    sending_limits = providers.Callable(_sending_limits, settings)

    sign_up = providers.Singleton(SignUp, users=users, mobile_numbers=mobile_numbers, clock=clock, ids=ids)
    open_session = providers.Singleton(
        OpenSession,
        sessions=sessions,
        access_tokens=access_tokens,
        refresh_tokens=refresh_tokens,
        clock=clock,
        ids=ids,
    )
    refresh_session = providers.Singleton(
        RefreshSession, sessions=sessions, access_tokens=access_tokens, refresh_tokens=refresh_tokens, clock=clock
    )
    list_sessions = providers.Singleton(ListSessions, sessions=sessions, clock=clock)
    end_session = providers.Singleton(EndSession, sessions=sessions, clock=clock)
    end_other_sessions = providers.Singleton(EndOtherSessions, sessions=sessions, clock=clock)
    rename_user = providers.Singleton(RenameUser, users=users)
    delete_user = providers.Singleton(
        DeleteUser, users=users, accounts=billing_accounts, gateway=payment_gateway, patience=_patience
    )
    authenticate = providers.Singleton(Authenticate, sessions=sessions, access_tokens=access_tokens)
    log_in = providers.Singleton(
        LogIn,
        users=users,
        budgets=budgets,
        clock=clock,
        password_hasher=password_hasher,
        open_session=open_session,
        mobile_numbers=mobile_numbers,
    )
    send_otp = providers.Singleton(
        SendOtp,
        users=users,
        challenges=challenges,
        sendings=sendings,
        unit_of_work=unit_of_work,
        is_limited=providers.Callable(_is_limited, settings),
        countries=providers.Callable(frozenset, settings.provided.allowed_countries),
        sender=otp_sender,
        code_hasher=code_hasher,
        mobile_numbers=mobile_numbers,
        clock=clock,
    )
    check_otp = providers.Singleton(
        CheckOtp,
        challenges=challenges,
        budgets=budgets,
        code_hasher=code_hasher,
        clock=clock,
        unit_of_work=unit_of_work,
    )
    consume_otp = providers.Singleton(ConsumeOtp, challenges=challenges, budgets=budgets)
    verify_otp = providers.Singleton(
        VerifyOtp,
        users=users,
        check_otp=check_otp,
        consume_otp=consume_otp,
        open_session=open_session,
        mobile_numbers=mobile_numbers,
        unit_of_work=unit_of_work,
    )
    set_password = providers.Singleton(
        SetPassword,
        users=users,
        sessions=sessions,
        consume_otp=consume_otp,
        password_hasher=password_hasher,
        clock=clock,
        unit_of_work=unit_of_work,
    )
    reset_password = providers.Singleton(
        ResetPassword,
        users=users,
        check_otp=check_otp,
        set_password=set_password,
        mobile_numbers=mobile_numbers,
        common_passwords=common_passwords,
    )
    change_password = providers.Singleton(
        ChangePassword,
        check_otp=check_otp,
        set_password=set_password,
        password_hasher=password_hasher,
        budgets=budgets,
        common_passwords=common_passwords,
        clock=clock,
    )

    create_chatroom = providers.Singleton(CreateChatroom, chatrooms=chatrooms, clock=clock, ids=ids)
    list_chatrooms = providers.Singleton(ListChatrooms, chatrooms=chatrooms, lists=chatroom_lists)
    open_chatroom = providers.Singleton(OpenChatroom, chatrooms=chatrooms)
    change_chatroom = providers.Singleton(ChangeChatroom, chatrooms=chatrooms)
    delete_chatroom = providers.Singleton(DeleteChatroom, chatrooms=chatrooms, stream=reply_stream)
    send_message = providers.Singleton(
        SendMessage,
        messages=messages,
        queue=queue,
        clock=clock,
        ids=ids,
        limits=sending_limits,
    )
    get_message = providers.Singleton(GetMessage, messages=messages)
    cancel_message = providers.Singleton(CancelMessage, messages=messages, stream=reply_stream)
    regenerate_message = providers.Singleton(
        RegenerateMessage, messages=messages, queue=queue, clock=clock, limits=sending_limits
    )
    reply_watch = providers.Singleton(ReplyWatch, messages)
    stream_reply = providers.Singleton(StreamReply, messages=messages, stream=reply_stream, watch=reply_watch)
    await_reply = providers.Singleton(AwaitReply, messages=messages, stream=reply_stream, watch=reply_watch)
    requeue_message = providers.Singleton(RequeueMessage, messages=messages, queue=queue)
    get_allowance = providers.Singleton(GetAllowance, messages=messages, clock=clock, limits=sending_limits)

    upgrade_tier = providers.Singleton(
        UpgradeTier,
        accounts=billing_accounts,
        gateway=payment_gateway,
        clock=clock,
        look_after=_checkouts_after,
        patience=_patience,
    )
    open_portal = providers.Singleton(OpenPortal, accounts=billing_accounts, gateway=payment_gateway)
    get_subscription = providers.Singleton(
        GetSubscription, accounts=billing_accounts, prices=settings.provided.pro_prices
    )
    accept_webhook_event = providers.Singleton(
        AcceptWebhookEvent, accounts=billing_accounts, gateway=payment_gateway, queue=readings, clock=clock
    )
    read_subscriptions = providers.Singleton(
        ReadSubscriptions,
        accounts=billing_accounts,
        gateway=payment_gateway,
        prices=settings.provided.pro_prices,
        checkouts_after=_checkouts_after,
        subscriptions_after=providers.Callable(timedelta, hours=settings.provided.subscription_reconcile_hours),
    )
    recover_readings = providers.Singleton(
        RecoverReadings, accounts=billing_accounts, queue=readings, quiet=settings.provided.lease
    )
    reconcile = providers.Singleton(
        Reconcile, accounts=billing_accounts, read_subscriptions=read_subscriptions, quiet=settings.provided.lease
    )

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
        stream=reply_stream,
        queue=queue,
        leases=leases,
        clock=clock,
        policy=retry_policy,
        lease=settings.provided.lease,
        suspects=providers.Singleton(Suspects),
        suggest_title=providers.Singleton(SuggestTitle, chatrooms=chatrooms, ask_model=ask_model),
        instructions=settings.provided.system_instruction,
    )
    purge_expired = providers.Singleton(
        PurgeExpired,
        challenges=challenges,
        sessions=sessions,
        budgets=budgets,
        sendings=sendings,
        keys=idempotency_keys,
        billing_accounts=billing_accounts,
        clock=clock,
    )
    recover_replies = providers.Singleton(RecoverReplies, messages=messages, queue=queue, quiet=settings.provided.lease)

    #: Started in this order, closed in reverse.
    resources = providers.List(postgres, redis, broker, reply_stream)
    #: What /ready and `check` look at.
    watched = providers.List(postgres, redis)


@asynccontextmanager
async def running(resources: list[Resource]) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for resource in resources:
            await resource.start()
            stack.push_async_callback(resource.close)
        yield
