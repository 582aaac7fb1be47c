"""What is made of what: one container for HTTP and worker, the only place that names adapters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TypeVar

from dependency_injector import containers, providers

from adapters.no_payments import NoPayments
from adapters.otp_sender import ConsoleOtpSender, InBackground, ReplyOtpSender, TwilioOtpSender
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
from adapters.postgres.database import Postgres, PostgresUnitOfWork
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
    derived_key,
)
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
from application.billing.webhooks import AcceptWebhookEvent, Reconcile, ResumeSyncs, SyncSubscriptions
from application.chat.breaker import Breaker
from application.chat.chatrooms import ChangeChatroom, CreateChatroom, DeleteChatroom, ListChatrooms, OpenChatroom
from application.chat.messages import (
    CancelMessage,
    ContinueMessage,
    GetAllowance,
    GetMessage,
    RegenerateMessage,
    RequeueMessage,
    SendMessage,
)
from application.chat.model_calls import CallModel
from application.chat.replies import GenerateReply, Leases, QuarantineSlot, RecoverReplies
from application.chat.setup import WatchSetup
from application.chat.streaming import AwaitReply, ReplyWatch, StreamReply
from application.chat.titles import SuggestTitle
from application.housekeeping import PurgeExpired
from application.ports.accounts import OtpSender
from application.ports.billing import PaymentGateway
from application.ports.chat import LanguageModel
from application.ports.runtime import Resource
from application.readiness import CheckReadiness
from domain.billing import SendingLimits, Tier
from domain.chat.calls import ReplyPlan
from domain.chat.retries import RetryPolicy
from entrypoints.setting_types import secrets
from entrypoints.settings import Settings
from entrypoints.wiring import Wiring


def _key_for(settings: Settings, purpose: str) -> bytes:
    return derived_key(settings.login.access_token_secret.get_secret_value(), purpose)


def _otp_sender(settings: Settings) -> OtpSender:
    match settings.login.otp_sender:
        case "twilio":
            sender = TwilioOtpSender(
                account=settings.twilio.account_sid,
                token=settings.twilio.auth_token.get_secret_value(),
                sender=settings.twilio.sender,
                api_base=settings.twilio.api_base,
            )
            return InBackground(sender)
        case "console":
            return InBackground(ConsoleOtpSender())
        case "reply":
            return ReplyOtpSender()


def _share_of_request(settings: Settings) -> float:
    """Seconds that a call of Stripe may take, so that the request around it can still be answered in time."""
    return settings.http.request_seconds * 0.8


def _sending_limits(settings: Settings) -> dict[Tier, SendingLimits]:
    """The daily allowance is the product; the rest protects the service, and tests may switch it off."""
    on = settings.limits.enabled
    return {
        Tier.BASIC: SendingLimits(
            daily=settings.limits.free_daily_messages, in_flight=settings.limits.basic_in_flight if on else None
        ),
        Tier.PRO: SendingLimits(
            in_flight=settings.limits.pro_in_flight if on else None,
            per_minute=settings.limits.pro_messages_per_minute if on else None,
        ),
    }


def _reply_plans(settings: Settings) -> dict[Tier, ReplyPlan]:
    return {
        Tier.BASIC: ReplyPlan(settings.replies.basic_reply_tokens, settings.replies.basic_thinking),
        Tier.PRO: ReplyPlan(settings.replies.pro_reply_tokens, settings.replies.pro_thinking),
    }


def _language_model(settings: Settings) -> LanguageModel:
    # Imported here: each SDK takes over a second and 65 MB, and only the worker asks.
    from adapters.gemini.model import DEFAULT_BASE_URL, Endpoint, GeminiModel

    endpoint = Endpoint(
        api_key=settings.gemini.api_key.get_secret_value(),
        model=settings.gemini.model,
        base_url=settings.gemini.base_url or DEFAULT_BASE_URL,
        proxy=settings.gemini.proxy.get_secret_value(),
    )
    match settings.gemini.sdk:
        case "rest":
            from adapters.gemini.rest import RestTransport

            return GeminiModel(endpoint, RestTransport(endpoint))
        case "google-genai":
            from adapters.gemini.google_genai import GoogleGenaiTransport

            return GeminiModel(endpoint, GoogleGenaiTransport(endpoint))
        case "google-generativeai":
            from adapters.gemini.google_generativeai import GoogleGenerativeaiTransport

            return GeminiModel(endpoint, GoogleGenerativeaiTransport(endpoint))


def _payment_gateway(settings: Settings) -> PaymentGateway:
    # Imported here: not every deployment sells anything, and the SDK takes a quarter of a second.
    if not settings.stripe.secret_key.get_secret_value():
        return NoPayments()
    from adapters.stripe import CheckoutPage, StripeGateway

    home = settings.public_url
    return StripeGateway(
        key=settings.stripe.secret_key.get_secret_value(),
        webhook_secrets=secrets(settings.stripe.webhook_secret),
        page=CheckoutPage(
            price=settings.stripe.price_id,
            prices=settings.stripe.pro_prices,
            success_url=settings.billing.checkout_success_url or f"{home}/?checkout=success",
            cancel_url=settings.billing.checkout_cancel_url or f"{home}/?checkout=cancelled",
            portal_return_url=settings.billing.portal_return_url or home,
            promotion_codes=settings.stripe.promotion_codes,
            automatic_tax=settings.stripe.automatic_tax,
        ),
        api_base=settings.stripe.api_base,
        seconds=settings.stripe.seconds,
    )


T = TypeVar("T")

_wiring = Wiring()
single, wired = _wiring.single, _wiring.wired


class Container(containers.DeclarativeContainer):
    """Sync providers only: one asynchronous one would turn all that depend on it into futures."""

    settings = providers.Dependency(instance_of=Settings)
    _wiring.add(Settings, settings)
    _checkouts_after = providers.Callable(timedelta, minutes=settings.provided.billing.checkout_reconcile_minutes)
    _patience = providers.Callable(_share_of_request, settings)

    clock = single(SystemClock)
    ids = single(TimeOrderedIds)
    mobile_numbers = single(LibPhoneNumbers, default_region=settings.provided.login.default_region)

    postgres = single(
        Postgres,
        settings.provided.postgres.url.get_secret_value.call(),
        pool=settings.provided.postgres.pool,
        acquire_seconds=settings.provided.postgres.acquire_seconds,
        statement_seconds=settings.provided.postgres.statement_seconds,
    )
    redis = single(
        RedisConnection,
        settings.provided.redis.url.get_secret_value.call(),
        command_seconds=settings.provided.redis.command_seconds,
    )
    broker = single(
        StreamBroker,
        settings.provided.redis.url.get_secret_value.call(),
        namespace=settings.provided.redis.namespace,
        command_seconds=settings.provided.redis.command_seconds,
    )

    unit_of_work = single(PostgresUnitOfWork)
    number_digests = single(HmacNumberDigests, key=providers.Callable(_key_for, settings, "mobile numbers"))
    users = single(PostgresUsers, number_digests)
    sessions = single(PostgresSessions)
    challenges = single(PostgresOtpChallenges)
    chatrooms = single(PostgresChatrooms)
    messages = single(PostgresMessages)
    chatroom_lists = single(RedisChatroomLists, redis, namespace=settings.provided.redis.namespace)
    rate_limiter = single(
        RedisRateLimiter,
        redis,
        namespace=settings.provided.redis.namespace,
        key=providers.Callable(_key_for, settings, "rate limits"),
    )
    queue = single(TaskiqJobQueue, broker, GENERATE_REPLY)
    reply_stream = single(
        RedisReplyStream,
        settings.provided.redis.url.get_secret_value.call(),
        namespace=settings.provided.redis.namespace,
        command_seconds=settings.provided.redis.command_seconds,
    )
    otp_sender = single(_otp_sender, settings)
    guess_limits = single(PostgresGuessLimits, number_digests)
    send_limits = single(PostgresOtpSendLimits, number_digests)
    common_passwords = single(ZxcvbnCommonPasswords)
    refresh_tokens = single(HmacRefreshTokens, key=providers.Callable(_key_for, settings, "refresh tokens"))
    # Parameters after OWASP ASVS 5.0: 64 MiB and three passes for passwords, its floor for short-lived codes.
    password_hasher = single(Argon2Hasher, memory_mib=64, iterations=3)
    code_hasher = single(
        Argon2Hasher, memory_mib=46, iterations=1, key=providers.Callable(_key_for, settings, "one-time codes")
    )
    access_tokens = single(
        JwtAccessTokens,
        secrets=settings.provided.login.access_token_secrets,
        lifetime_seconds=settings.provided.login.access_token_seconds,
        clock=clock,
    )
    language_model = single(_language_model, settings)
    model_setup = single(PostgresModelSetup)
    model_budget = single(PostgresModelBudget, settings.provided.gemini.max_rpm)
    idempotency_keys = single(PostgresIdempotencyKeys)
    idempotency_hash_key = providers.Callable(_key_for, settings, "idempotency keys")
    billing_accounts = single(PostgresBillingAccounts, unit_of_work)
    payment_gateway = single(_payment_gateway, settings)
    readings = single(TaskiqJobQueue, broker, READ_SUBSCRIPTIONS)
    sending_limits = providers.Callable(_sending_limits, settings)
    reply_plans = providers.Callable(_reply_plans, settings)

    sign_up = wired(SignUp)
    open_session = wired(OpenSession)
    refresh_session = wired(RefreshSession)
    list_sessions = wired(ListSessions)
    end_session = wired(EndSession)
    end_other_sessions = wired(EndOtherSessions)
    rename_user = wired(RenameUser)
    delete_user = wired(DeleteUser, patience=_patience)
    authenticate = wired(Authenticate)
    log_in = wired(LogIn, password_hasher=password_hasher)
    send_otp = wired(
        SendOtp,
        is_limited=settings.provided.limits.enabled,
        countries=settings.provided.login.otp_countries,
        code_hasher=code_hasher,
    )
    check_otp = wired(CheckOtp, code_hasher=code_hasher)
    consume_otp = wired(ConsumeOtp)
    verify_otp = wired(VerifyOtp)
    set_password = wired(SetPassword, password_hasher=password_hasher)
    reset_password = wired(ResetPassword)
    change_password = wired(ChangePassword, password_hasher=password_hasher)

    create_chatroom = wired(CreateChatroom)
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
    get_allowance = wired(GetAllowance, limits=sending_limits)

    upgrade_tier = wired(UpgradeTier, recheck_after=_checkouts_after, patience=_patience)
    open_portal = wired(OpenPortal)
    get_subscription = wired(GetSubscription, prices=settings.provided.stripe.pro_prices)
    accept_webhook_event = wired(AcceptWebhookEvent, queue=readings)
    read_subscriptions = wired(
        SyncSubscriptions,
        prices=settings.provided.stripe.pro_prices,
        checkouts_after=_checkouts_after,
        subscriptions_after=providers.Callable(timedelta, hours=settings.provided.billing.subscription_reconcile_hours),
    )
    recover_readings = wired(ResumeSyncs, queue=readings, quiet=settings.provided.worker.lease)
    reconcile = wired(Reconcile, quiet=settings.provided.worker.lease)

    leases = single(Leases, messages, settings.provided.worker.lease)
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
        lease=settings.provided.worker.lease,
        quarantine=providers.Singleton(QuarantineSlot),
        thought_tokens=settings.provided.replies.thought_tokens,
        instructions=settings.provided.replies.system_instruction,
    )
    purge_expired = wired(PurgeExpired)
    recover_replies = wired(RecoverReplies, queue=queue, renotify_after=settings.provided.worker.lease)

    #: Started in this order, closed in reverse.
    resources = providers.List(postgres, redis, broker, reply_stream)
    #: What /ready and `check` look at.
    watched = providers.List(postgres, redis)
    check_readiness = wired(CheckReadiness, dependencies=watched)


def provider_of(container: Container, kind: type[T]) -> Callable[[], T]:
    """The container's one provider of this type, or of what implements it."""
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
