"""Every setting, read once from the environment and checked before anything starts.

A field's name in capitals is its environment variable. An empty variable counts as unset.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, distribution
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import phonenumbers
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from domain.chat.calls import ThinkingLevel
from domain.chat.chatrooms import MAX_INSTRUCTIONS_CHARACTERS

SERVERS = ("DATABASE_URL", "REDIS_URL")
SERVE_NEEDS = (*SERVERS, "ACCESS_TOKEN_SECRET")
WORKER_NEEDS = (*SERVERS, "GEMINI_API_KEY")
MIGRATE_NEEDS = ("DATABASE_URL",)

_THOUGHT_TOKENS = "minimal=1024,low=8192,medium=24576,high=32768"

_STRIPE = ("stripe_secret_key", "stripe_price_id", "stripe_webhook_secret")

_TWILIO = ("twilio_account_sid", "twilio_auth_token", "twilio_from")
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - production's default, for platforms that set PORT
#: What the models of 2026 take as `maxOutputTokens`.
MAX_OUTPUT_TOKENS = 65_536
OTP_IN_RESPONSE_CONSENT = "yes-this-is-a-demo"

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class SettingsError(Exception):
    """Settings that cannot be started with: one line each, naming the variable, never its value."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = list(lines)
        super().__init__("\n".join(self.lines))


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    app_env: Literal["development", "production"] = "development"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    metrics_token: SecretStr = SecretStr("")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    database_url: SecretStr = SecretStr("")
    redis_url: SecretStr = SecretStr("")
    redis_namespace: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] = "gemini-backend"
    data_dir: Path = Path(".data")

    access_token_secret: SecretStr = SecretStr("")
    access_token_old_secrets: SecretStr = SecretStr("")
    access_token_seconds: Count = 3600
    otp_sender: Literal["reply", "console", "twilio"] = "reply"
    otp_in_response: Literal["", "yes-this-is-a-demo"] = ""
    otp_countries: str = ""
    twilio_account_sid: str = ""
    twilio_auth_token: SecretStr = SecretStr("")
    twilio_from: str = ""
    twilio_api_base: str = ""
    default_region: str = "IN"

    gemini_api_key: SecretStr = SecretStr("")
    gemini_base_url: str = ""
    gemini_model: str = "gemini-flash-latest"
    gemini_sdk: Literal["rest", "google-genai", "google-generativeai"] = "rest"
    gemini_proxy: SecretStr = SecretStr("")
    gemini_max_rpm: Annotated[int, Field(ge=0)] = 0
    basic_thinking: ThinkingLevel = ThinkingLevel.LOW
    pro_thinking: ThinkingLevel = ThinkingLevel.MEDIUM
    title_thinking: ThinkingLevel = ThinkingLevel.MINIMAL
    thought_tokens: str = _THOUGHT_TOKENS
    basic_reply_tokens: Count = 4_096
    pro_reply_tokens: Count = 16_384
    system_instruction: Annotated[str, Field(max_length=MAX_INSTRUCTIONS_CHARACTERS)] = ""

    stripe_secret_key: SecretStr = SecretStr("")
    stripe_price_id: str = ""
    stripe_other_prices: str = ""
    stripe_webhook_secret: SecretStr = SecretStr("")
    stripe_api_base: str = ""
    stripe_promotion_codes: Literal["on", "off"] = "off"
    stripe_automatic_tax: Literal["on", "off"] = "off"
    stripe_seconds: Seconds = 8
    public_url: str = "http://127.0.0.1:8000"
    checkout_success_url: str = ""
    checkout_cancel_url: str = ""
    portal_return_url: str = ""
    checkout_reconcile_minutes: Seconds = 15
    subscription_reconcile_hours: Seconds = 24

    free_daily_messages: Annotated[int, Field(ge=0)] = 5
    rate_limits: Literal["on", "off"] = "on"
    basic_in_flight: Count = 3
    pro_in_flight: Count = 10
    pro_messages_per_minute: Count = 40

    rate_signup: str = "5/3600"
    rate_login: str = "7/300"
    rate_verify: str = "30/300"
    rate_refresh: str = "150/300"
    rate_codes: str = "30/3600"
    rate_codes_prefix: str = "20/3600"
    rate_reads: str = "300/60"

    worker_concurrency: Count = 512
    lease_seconds: Seconds = 10
    heartbeat_seconds: Seconds = 3
    sweep_seconds: Seconds = 2
    max_attempts: Count = 5
    max_message_minutes: Seconds = 10
    first_token_seconds: Seconds = 60
    silence_seconds: Seconds = 60
    reply_seconds: Seconds = 600

    trusted_proxies: str = ""
    cors_origins: str = ""
    web_page: Literal["on", "off"] = "on"

    header_seconds: Seconds = 5
    request_seconds: Seconds = 10
    keep_alive_seconds: Seconds = 65
    shutdown_seconds: Seconds = 25
    json_body_bytes: Count = 65_536
    webhook_body_bytes: Count = 524_288
    header_bytes: Count = 16_384
    stream_seconds: Seconds = 600
    stream_ping_seconds: Seconds = 15
    streams_per_user: Count = 3
    streams_per_process: Count = 1000

    postgres_pool: Count = 20
    postgres_acquire_seconds: Seconds = 2
    postgres_statement_seconds: Seconds = 5
    redis_command_seconds: Seconds = 0.5

    @property
    def is_production(self) -> bool:
        return self.app_env == "production"

    @property
    def warnings(self) -> list[str]:
        """What production was explicitly allowed to do and should not."""
        if self.is_production and self.otp_sender == "reply":
            return ["One-time codes are handed out in replies: anybody can log in as anybody."]
        return []

    @property
    def access_token_secrets(self) -> list[str]:
        """The one that signs, then those that still hold."""
        return [self.access_token_secret.get_secret_value(), *_words(self.access_token_old_secrets.get_secret_value())]

    @property
    def trusted_networks(self) -> list[IPv4Network | IPv6Network]:
        return [ip_network(word) for word in _words(self.trusted_proxies)]

    @property
    def allowed_origins(self) -> list[str]:
        return _words(self.cors_origins)

    @property
    def allowed_countries(self) -> list[str]:
        return _words(self.otp_countries)

    @property
    def thought_budget(self) -> dict[ThinkingLevel, int]:
        """Tokens for thoughts, above the reply's, at each level."""
        pairs = (word.split("=") for word in _words(f"{_THOUGHT_TOKENS},{self.thought_tokens}"))  # the last one holds
        return {ThinkingLevel(level): int(tokens) for level, tokens in pairs}

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)

    @property
    def pro_prices(self) -> frozenset[str]:
        """All prices that mean Pro: the one that is sold, and those that were."""
        return frozenset(_words(f"{self.stripe_price_id},{self.stripe_other_prices}"))

    @property
    def webhook_secrets(self) -> list[str]:
        return _words(self.stripe_webhook_secret.get_secret_value())

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], *, needs: Iterable[str] = ()) -> Self:
        """Raises SettingsError with a line for every variable that is missing or wrong."""
        known = {name: environment[name.upper()] for name in cls.model_fields if environment.get(name.upper())}
        lines = [f"{name} is not set." for name in needs if name.lower() not in known]
        try:
            settings = cls.model_validate(known)
        except ValidationError as error:
            lines += [_line(dict(detail)) for detail in error.errors(include_url=False, include_input=False)]
        if lines:
            raise SettingsError(lines)
        return settings

    @model_validator(mode="before")
    @classmethod
    def _every_address_in_production(cls, given: dict[str, Any]) -> dict[str, Any]:
        """A platform names the port alone and comes from outside the container or the machine."""
        return {"host": ANY_ADDRESS, **given} if given.get("app_env") == "production" else given

    @field_validator("database_url")
    @classmethod
    def _postgres_url(cls, value: SecretStr) -> SecretStr:
        return _url(value, "postgres", "postgresql")

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: SecretStr) -> SecretStr:
        return _url(value, "redis", "rediss")

    @field_validator("gemini_api_key")
    @classmethod
    def _header_value(cls, value: SecretStr) -> SecretStr:
        key = value.get_secret_value().strip()  # a copied one often ends with a line break
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError("must be printable ASCII without spaces")
        return SecretStr(key)

    @field_validator("gemini_sdk")
    @classmethod
    def _installed(cls, value: str) -> str:
        if value != "rest":
            try:
                distribution(value)
            except PackageNotFoundError:
                raise ValueError(f"{value} is not installed: it comes with the extra of that name") from None
        return value

    @field_validator("gemini_proxy")
    @classmethod
    def _proxy_url(cls, value: SecretStr) -> SecretStr:
        return _url(value, "http", "https")

    @field_validator(
        "gemini_base_url",
        "stripe_api_base",
        "twilio_api_base",
        "public_url",
        "checkout_success_url",
        "checkout_cancel_url",
        "portal_return_url",
    )
    @classmethod
    def _http_url(cls, value: str) -> str:
        return _url(SecretStr(value), "http", "https").get_secret_value().rstrip("/")

    @field_validator(
        "rate_signup",
        "rate_login",
        "rate_verify",
        "rate_refresh",
        "rate_codes",
        "rate_codes_prefix",
        "rate_reads",
    )
    @classmethod
    def _rate(cls, value: str) -> str:
        if not re.fullmatch(r"[1-9]\d{0,5}/[1-9]\d{0,5}", value, re.ASCII):
            raise ValueError("must be calls/seconds such as 30/300")
        return value

    @field_validator("default_region")
    @classmethod
    def _region(cls, value: str) -> str:
        if value not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError("must be a two-letter region such as IN or DE")
        return value

    @field_validator("thought_tokens")
    @classmethod
    def _levels(cls, value: str) -> str:
        level = f"({'|'.join(ThinkingLevel)})"
        if not all(re.fullmatch(rf"{level}=\d{{1,5}}", word, re.ASCII) for word in _words(value)):
            raise ValueError("must be levels with tokens such as low=8192,high=32768, separated by commas")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        try:
            [ip_network(word) for word in _words(value)]
        except ValueError:
            raise ValueError("must be addresses or networks such as 10.0.0.0/8, separated by commas") from None
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        for origin in _words(value):
            parts = urlsplit(_url(SecretStr(origin), "http", "https").get_secret_value())
            if parts.path or parts.query or parts.fragment or parts.username:
                raise ValueError("must be origins such as https://app.example.com, separated by commas")
        return value

    @field_validator("otp_countries")
    @classmethod
    def _regions(cls, value: str) -> str:
        if not set(_words(value)) <= phonenumbers.SUPPORTED_REGIONS:
            raise ValueError("must be two-letter regions such as IN,DE, separated by commas")
        return value

    @field_validator("access_token_secret", "metrics_token")
    @classmethod
    def _strong_secret(cls, value: SecretStr) -> SecretStr:
        return _strong(value, [value.get_secret_value()])

    @field_validator("access_token_old_secrets")
    @classmethod
    def _strong_secrets(cls, value: SecretStr) -> SecretStr:
        return _strong(value, _words(value.get_secret_value()))

    @model_validator(mode="after")
    def _heartbeat_within_lease(self) -> Self:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError("HEARTBEAT_SECONDS must be at most half of LEASE_SECONDS")
        return self

    @model_validator(mode="after")
    def _replies_with_thoughts_within_what_models_write(self) -> Self:
        for name, tokens, level in (
            ("BASIC_REPLY_TOKENS", self.basic_reply_tokens, self.basic_thinking),
            ("PRO_REPLY_TOKENS", self.pro_reply_tokens, self.pro_thinking),
        ):
            if tokens + self.thought_budget[level] > MAX_OUTPUT_TOKENS:
                raise ValueError(f"{name} and THOUGHT_TOKENS for {level} must be at most {MAX_OUTPUT_TOKENS} together")
        return self

    @model_validator(mode="after")
    def _stripe_as_a_whole(self) -> Self:
        key, secrets = self.stripe_secret_key.get_secret_value(), self.stripe_webhook_secret.get_secret_value()
        values = zip(_STRIPE, (key, self.stripe_price_id, secrets), strict=True)
        given = {name: bool(_words(value)) for name, value in values}
        if any(given.values()) and not all(given.values()):
            missing = ", ".join(name.upper() for name, is_given in given.items() if not is_given)
            raise ValueError(f"{missing} must be set, too: STRIPE_* variables only work together")
        return self

    @model_validator(mode="after")
    def _pages_to_come_back_to(self) -> Self:
        pages = (self.checkout_success_url, self.checkout_cancel_url, self.portal_return_url)
        is_default = self.public_url == type(self).model_fields["public_url"].default and not all(pages)
        if self.is_production and self.stripe_secret_key and is_default:
            raise ValueError("PUBLIC_URL must be set with APP_ENV=production: Stripe sends payers back to it")
        return self

    @model_validator(mode="after")
    def _limits_in_production(self) -> Self:
        if self.is_production and self.rate_limits == "off":
            raise ValueError("RATE_LIMITS must be on with APP_ENV=production")
        return self

    @model_validator(mode="after")
    def _not_everybody_trusted_in_production(self) -> Self:
        if self.is_production and any(network.prefixlen == 0 for network in self.trusted_networks):
            raise ValueError("TRUSTED_PROXIES must not be the whole world with APP_ENV=production: callers could lie")
        return self

    @model_validator(mode="after")
    def _no_codes_in_production_replies(self) -> Self:
        in_reply = self.otp_sender == "reply" and self.otp_in_response != OTP_IN_RESPONSE_CONSENT
        if self.is_production and in_reply:
            raise ValueError(
                "OTP_SENDER: one-time codes would be handed out in replies, which lets anybody log in as anybody;"
                f" refused with APP_ENV=production unless OTP_IN_RESPONSE is {OTP_IN_RESPONSE_CONSENT}"
            )
        if self.is_production and self.otp_sender == "console":
            raise ValueError("OTP_SENDER must not be console with APP_ENV=production: codes would be in its output")
        return self

    @model_validator(mode="after")
    def _twilio_as_a_whole(self) -> Self:
        missing = [name.upper() for name in _TWILIO if self.otp_sender == "twilio" and not getattr(self, name)]
        if missing:
            raise ValueError(f"{', '.join(missing)} must be set with OTP_SENDER=twilio")
        return self


def _strong(value: SecretStr, secrets: Iterable[str]) -> SecretStr:
    if any(len(secret.encode()) < 32 or len(set(secret)) < 8 for secret in secrets):
        raise ValueError("is too weak: at least 32 random bytes, for instance from 'openssl rand -hex 32'")
    return value


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _url(value: SecretStr, *schemes: str) -> SecretStr:
    try:
        parts = urlsplit(value.get_secret_value())
        valid = parts.scheme in schemes and parts.hostname and parts.port != 0  # a port that is none raises
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(
            f"must be a URL that starts with {' or '.join(f'{scheme}://' for scheme in schemes)}, with a host"
        )
    return value


def _line(error: dict[str, Any]) -> str:
    """One line in our words: the variable, what is wrong with it, never what it holds."""
    context = error.get("ctx", {})
    match error["type"]:
        case "value_error":
            text = str(context["error"])
        case "literal_error" | "enum":
            text = f"must be {context['expected']}"
        case "int_parsing" | "int_from_float" | "int_type":
            text = "must be a whole number"
        case "float_parsing" | "finite_number":
            text = "must be a number"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            words = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
            text = "must be " + next(f"{word} {context[key]}" for key, word in words.items() if key in context)
        case "string_too_long":
            text = f"must have at most {context['max_length']} characters"
        case _:
            text = "is not valid"
    return " ".join([*(str(part).upper() for part in error["loc"]), text]) + "."
