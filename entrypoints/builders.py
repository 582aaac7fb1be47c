"""Builds what depends on a choice among adapters or on several settings, for the container."""

from __future__ import annotations

from adapters.no_payments import NoPayments
from adapters.otp_sender.senders import ConsoleOtpSender, InBackground, ReplyOtpSender
from adapters.postgres.clock import PostgresClock
from adapters.security import derived_key
from application.ports.accounts import OtpSender
from application.ports.billing import PaymentGateway
from application.ports.chat import LanguageModel
from application.ports.runtime import Clock
from domain.billing import SendingLimits, Tier
from domain.chat.calls import ReplyPlan
from domain.rates import Rate
from entrypoints.setting_types import secrets
from entrypoints.settings import Settings


def key_for(settings: Settings, purpose: str) -> bytes:
    return derived_key(settings.login.access_token_secret.get_secret_value(), purpose)


def shared_clock(database: PostgresClock) -> Clock:
    """By which everything is stamped and compared, so that no decision depends on the clocks of two hosts."""
    return database


def otp_sender(settings: Settings) -> OtpSender:
    match settings.login.otp_sender:
        case "twilio":
            # Imported here: only those who send SMS need its HTTP client.
            from adapters.otp_sender.twilio import TwilioAccount, TwilioOtpSender

            account = TwilioAccount(
                sid=settings.twilio.account_sid,
                token=settings.twilio.auth_token.get_secret_value(),
                sender=settings.twilio.sender,
                channel=settings.twilio.channel,
                content=settings.twilio.content_sid,
                message=settings.login.otp_message,
                api_base=settings.twilio.api_base,
            )
            return InBackground(TwilioOtpSender(account))
        case "console":
            return InBackground(ConsoleOtpSender())
        case "reply":
            return ReplyOtpSender()


def payment_timeout(settings: Settings) -> float:
    """Seconds that Stripe may take in all, so that the request around it can still be answered in time."""
    return settings.http.request_seconds * 0.8


def payment_rate(settings: Settings) -> Rate | None:
    return settings.rates.payments if settings.limits.enabled else None


def sending_limits(settings: Settings) -> dict[Tier, SendingLimits]:
    """The daily allowance is part of the product; the other limits protect the service, and tests may disable them."""
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


def most_chatrooms(settings: Settings) -> int | None:
    return settings.limits.chatrooms_per_user if settings.limits.enabled else None


def reply_plans(settings: Settings) -> dict[Tier, ReplyPlan]:
    return {
        Tier.BASIC: ReplyPlan(settings.replies.basic_reply_tokens, settings.replies.basic_thinking),
        Tier.PRO: ReplyPlan(settings.replies.pro_reply_tokens, settings.replies.pro_thinking),
    }


def language_model(settings: Settings) -> LanguageModel:
    # Imported here: each SDK takes over a second and 65 MB, and only the worker needs it.
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


def payment_gateway(settings: Settings) -> PaymentGateway:
    # Imported here: not every deployment has payments, and the SDK takes a quarter of a second.
    if not settings.stripe.secret_key.get_secret_value():
        return NoPayments()
    from adapters.stripe.gateway import CheckoutPage, StripeGateway

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
