"""Every setting, read once from the environment and checked before anything starts.

A field's variable is its name in capitals, behind its group's prefix if that has one, or its alias. An empty variable
counts as unset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, SecretStr, ValidationError, ValidationInfo, model_validator

from domain.chat.calls import ThinkingLevel
from domain.chat.chatrooms import MAX_INSTRUCTIONS_CHARACTERS
from entrypoints import setting_types as types
from entrypoints.secret_files import SUFFIX, read_secret_files
from entrypoints.setting_types import UNSET, Count, HttpUrl, NonNegative, PerWindow, Port, Seconds, Switch, written
from entrypoints.validation import explanation

SERVERS = ("DATABASE_URL", "REDIS_URL")
SERVE_NEEDS = (*SERVERS, "ACCESS_TOKEN_SECRET")
WORKER_NEEDS = (*SERVERS, "GEMINI_API_KEY")
MIGRATE_NEEDS = ("DATABASE_URL",)

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - production's default, for platforms that set PORT
#: A load balancer that asks /ready every other second has noticed. On a developer's machine none would.
PRODUCTION_DRAIN_SECONDS = "5"
OTP_IN_RESPONSE_CONSENT = "yes-this-is-a-demo"
#: What the models of 2026 take as `maxOutputTokens`.
MAX_OUTPUT_TOKENS = 65_536


class SettingsError(Exception):
    """Settings that cannot be started with: one line each, naming the variable, never its value."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = list(lines)
        super().__init__("\n".join(self.lines))


def _behind(prefix: str) -> Callable[[str], str]:
    return lambda name: prefix + name.upper()


def _missing(**values: object) -> list[str]:
    return [variable for variable, value in values.items() if not value]


def _serves(info: ValidationInfo) -> bool:
    """Whether they are for a process that serves the API: others need not know how codes are sent, for example."""
    needs = (info.context or {}).get("needs")
    return not needs or "ACCESS_TOKEN_SECRET" in needs


class Group(BaseModel, frozen=True, extra="ignore", hide_input_in_errors=True, alias_generator=_behind("")):
    """Settings of one area."""


class PostgresSettings(Group, alias_generator=_behind("POSTGRES_")):
    url: types.PostgresUrl = Field(UNSET, alias="DATABASE_URL")
    #: For migrations, where `url` leads through a pooler.
    direct_url: types.PostgresUrl = Field(UNSET, alias="DATABASE_DIRECT_URL")
    pooler: types.Found = Field("auto", alias="DATABASE_POOLER")
    pool: Count = 20
    acquire_seconds: Seconds = 2
    statement_seconds: Seconds = 5

    @property
    def has_pooler(self) -> bool | None:
        """None: to be found out."""
        return {"auto": None, "on": True, "off": False}[self.pooler]


class RedisSettings(Group, alias_generator=_behind("REDIS_")):
    url: types.RedisUrl = UNSET
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] = "gemini-backend"
    command_seconds: Seconds = 0.5


class LoginSettings(Group):
    access_token_secret: types.StrongSecret = UNSET
    access_token_old_secrets: types.StrongSecrets = written("")
    access_token_seconds: Count = 3600
    otp_sender: Literal["reply", "console", "twilio"] = "reply"
    otp_in_response: Literal["", "yes-this-is-a-demo"] = ""
    otp_countries: types.Regions = written("")
    #: 0 is unlimited.
    otp_daily: NonNegative = 5_000
    otp_message: types.MessageWithCode = ""
    default_region: types.Region = "IN"

    @property
    def access_token_secrets(self) -> list[str]:
        """The one that signs, then those that are still accepted."""
        return types.secrets([self.access_token_secret, *self.access_token_old_secrets])


class TwilioSettings(Group, alias_generator=_behind("TWILIO_")):
    account_sid: str = ""
    auth_token: SecretStr = UNSET
    sender: str = Field("", alias="TWILIO_FROM")
    channel: Literal["sms", "whatsapp"] = "sms"
    content_sid: str = ""
    api_base: HttpUrl = ""


class GeminiSettings(Group, alias_generator=_behind("GEMINI_")):
    api_key: types.HeaderSecret = UNSET
    base_url: HttpUrl = ""
    model: str = "gemini-flash-latest"
    sdk: types.Sdk = "rest"
    proxy: types.SecretHttpUrl = UNSET
    max_rpm: NonNegative = 0


class ReplySettings(Group):
    basic_thinking: ThinkingLevel = ThinkingLevel.LOW
    pro_thinking: ThinkingLevel = ThinkingLevel.MEDIUM
    title_thinking: ThinkingLevel = ThinkingLevel.MINIMAL
    #: Beyond those of the reply.
    thought_tokens: types.ThoughtTokens = written(types.DEFAULT_THOUGHT_TOKENS)
    basic_reply_tokens: Count = 4_096
    pro_reply_tokens: Count = 16_384
    system_instruction: Annotated[str, Field(max_length=MAX_INSTRUCTIONS_CHARACTERS)] = ""

    @model_validator(mode="after")
    def _within_the_models_limit(self) -> Self:
        for name, tokens, level in (
            ("BASIC_REPLY_TOKENS", self.basic_reply_tokens, self.basic_thinking),
            ("PRO_REPLY_TOKENS", self.pro_reply_tokens, self.pro_thinking),
        ):
            if tokens + self.thought_tokens[level] > MAX_OUTPUT_TOKENS:
                raise ValueError(f"{name} and THOUGHT_TOKENS for {level} must be at most {MAX_OUTPUT_TOKENS} together")
        return self


class StripeSettings(Group, alias_generator=_behind("STRIPE_")):
    secret_key: SecretStr = UNSET
    price_id: str = ""
    other_prices: types.Words = written("")
    webhook_secret: types.Secrets = written("")
    api_base: HttpUrl = ""
    promotion_codes: Switch = written("off")
    automatic_tax: Switch = written("off")
    seconds: Seconds = 8

    @property
    def pro_prices(self) -> frozenset[str]:
        """All prices that mean Pro: the one that is sold, and those sold before."""
        return frozenset([*types.split(self.price_id), *self.other_prices])

    @model_validator(mode="after")
    def _all_or_none(self, info: ValidationInfo) -> Self:
        together: dict[str, object] = {
            "STRIPE_SECRET_KEY": types.split(self.secret_key.get_secret_value()),
            "STRIPE_PRICE_ID": types.split(self.price_id),
        }
        if _serves(info):
            together["STRIPE_WEBHOOK_SECRET"] = self.webhook_secret
        missing = _missing(**together)
        if 0 < len(missing) < len(together):
            raise ValueError(f"{', '.join(missing)} must be set, too: STRIPE_* variables only work together")
        return self


class BillingSettings(Group):
    checkout_success_url: HttpUrl = ""
    checkout_cancel_url: HttpUrl = ""
    portal_return_url: HttpUrl = ""
    checkout_reconcile_minutes: Seconds = 15
    subscription_reconcile_hours: Seconds = 24


class LimitSettings(Group):
    free_daily_messages: NonNegative = 5
    #: Off for tests and benchmarks; the daily allowance always holds.
    enabled: Switch = written("on", alias="RATE_LIMITS")
    basic_in_flight: Count = 3
    pro_in_flight: Count = 10
    pro_messages_per_minute: Count = 40
    chatrooms_per_user: Count = 1000
    idempotency_keys_per_user: Count = 1000
    #: In one process.
    requests_per_user: Count = 10


class RateSettings(Group, alias_generator=_behind("RATE_")):
    signup: PerWindow = written("5/3600")
    login: PerWindow = written("7/300")
    verify: PerWindow = written("30/300")
    refresh: PerWindow = written("150/300")
    codes: PerWindow = written("30/3600")
    codes_prefix: PerWindow = written("20/3600")
    reads: PerWindow = written("300/60")
    writes: PerWindow = written("60/60")
    messages: PerWindow = written("120/60")
    billing: PerWindow = written("10/60")
    payments: PerWindow = written("5/60")
    sessions: PerWindow = written("30/60")


class WorkerSettings(Group):
    concurrency: Count = Field(512, alias="WORKER_CONCURRENCY")
    lease_seconds: Seconds = 10
    heartbeat_seconds: Seconds = 3
    sweep_seconds: Seconds = 2
    max_attempts: Count = 5
    max_message_minutes: Seconds = 10
    messages_kept_days: NonNegative = 0
    first_token_seconds: Seconds = 60
    silence_seconds: Seconds = 60
    reply_seconds: Seconds = 600

    @property
    def messages_kept(self) -> timedelta | None:
        return timedelta(days=self.messages_kept_days) if self.messages_kept_days else None

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)

    @model_validator(mode="after")
    def _heartbeat_within_lease(self) -> Self:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError("HEARTBEAT_SECONDS must be at most half of LEASE_SECONDS")
        return self


class HttpSettings(Group):
    trusted_proxies: types.Networks = written("")
    cors_origins: types.Origins = written("")
    web_page: Switch = written("on")
    header_seconds: Seconds = 5
    request_seconds: Seconds = 10
    keep_alive_seconds: Seconds = 65
    drain_seconds: types.Pause = 0
    shutdown_seconds: Seconds = 25
    json_body_bytes: Count = 65_536
    webhook_body_bytes: Count = 524_288
    header_bytes: Count = 16_384

    @model_validator(mode="after")
    def _drained_in_time(self) -> Self:
        if self.drain_seconds * 2 > self.shutdown_seconds:
            raise ValueError("DRAIN_SECONDS must be at most half of SHUTDOWN_SECONDS")
        return self


class StreamSettings(Group, alias_generator=_behind("STREAM_")):
    seconds: Seconds = 600
    ping_seconds: Seconds = 15
    per_user: Count = Field(3, alias="STREAMS_PER_USER")
    per_process: Count = Field(1000, alias="STREAMS_PER_PROCESS")


class Settings(Group):
    app_env: Literal["development", "production"] = "development"
    host: str = "127.0.0.1"
    port: Port = 8000
    public_url: HttpUrl = "http://127.0.0.1:8000"
    metrics_port: Port = 0
    metrics_token: types.StrongSecret = UNSET
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    data_dir: Path = Path(".data")

    postgres: PostgresSettings = PostgresSettings()
    redis: RedisSettings = RedisSettings()
    login: LoginSettings = LoginSettings()
    twilio: TwilioSettings = TwilioSettings()
    gemini: GeminiSettings = GeminiSettings()
    replies: ReplySettings = ReplySettings()
    stripe: StripeSettings = StripeSettings()
    billing: BillingSettings = BillingSettings()
    limits: LimitSettings = LimitSettings()
    rates: RateSettings = RateSettings()
    worker: WorkerSettings = WorkerSettings()
    http: HttpSettings = HttpSettings()
    streams: StreamSettings = StreamSettings()

    @property
    def is_production(self) -> bool:
        return self.app_env == "production"

    @property
    def warnings(self) -> list[str]:
        """Unsafe settings that production was explicitly allowed to use."""
        if self.is_production and self.login.otp_sender == "reply":
            return ["One-time codes are handed out in replies: anybody can log in as anybody."]
        return []

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], *, needs: Iterable[str] = ()) -> Self:
        """Raises SettingsError with a line for every variable that is missing or wrong."""
        needs = tuple(needs)
        given, lines = read_secret_files(environment, cls.secret_names())
        known: dict[str, Any] = {name: value for name, value in given.items() if value}
        if known.get("APP_ENV") == "production":
            known.setdefault("HOST", ANY_ADDRESS)  # a platform names only the port, and connects from outside
            known.setdefault("DRAIN_SECONDS", PRODUCTION_DRAIN_SECONDS)
        groups = {name.upper(): known for name, field in cls.model_fields.items() if isinstance(field.default, Group)}
        unreadable = {line.split()[0].removesuffix(SUFFIX) for line in lines}
        lines += [f"{name} is not set." for name in needs if name not in known and name not in unreadable]
        try:
            settings = cls.model_validate({**known, **groups}, context={"needs": needs})
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_input=False):
                variable = [part for part in detail["loc"] if isinstance(part, str) and part not in groups]
                lines.append(" ".join([*variable, explanation(detail)]) + ".")
        if lines:
            raise SettingsError(dict.fromkeys(lines))
        return settings

    @classmethod
    def secret_names(cls) -> list[str]:
        """The variables whose values are secrets."""
        groups = [type(field.default) for field in cls.model_fields.values() if isinstance(field.default, Group)]
        return [
            str(field.alias)
            for group in (cls, *groups)
            for field in group.model_fields.values()
            if "SecretStr" in repr(field.annotation)
        ]

    @model_validator(mode="after")
    def _twilio_as_a_whole(self, info: ValidationInfo) -> Self:
        if not _serves(info):
            return self
        twilio = self.twilio
        missing = _missing(
            TWILIO_ACCOUNT_SID=twilio.account_sid, TWILIO_AUTH_TOKEN=twilio.auth_token, TWILIO_FROM=twilio.sender
        )
        if self.login.otp_sender == "twilio" and missing:
            raise ValueError(f"{', '.join(missing)} must be set with OTP_SENDER=twilio")
        if twilio.channel == "whatsapp" and not twilio.content_sid:
            raise ValueError(
                "TWILIO_CONTENT_SID must be set with TWILIO_CHANNEL=whatsapp, which delivers approved templates only"
            )
        return self

    @model_validator(mode="after")
    def _safe_in_production(self, info: ValidationInfo) -> Self:
        if not self.is_production or not _serves(info):
            return self
        pages = (self.billing.checkout_success_url, self.billing.checkout_cancel_url, self.billing.portal_return_url)
        is_default = self.public_url == type(self).model_fields["public_url"].default
        if self.stripe.secret_key and is_default and not all(pages):
            raise ValueError("PUBLIC_URL must be set with APP_ENV=production: Stripe sends payers back to it")
        if not self.limits.enabled:
            raise ValueError("RATE_LIMITS must be on with APP_ENV=production")
        if any(network.prefixlen == 0 for network in self.http.trusted_proxies):
            raise ValueError("TRUSTED_PROXIES must not be the whole world with APP_ENV=production: callers could lie")
        if self.login.otp_sender == "reply" and self.login.otp_in_response != OTP_IN_RESPONSE_CONSENT:
            raise ValueError(
                "OTP_SENDER: one-time codes would be handed out in replies, which lets anybody log in as anybody;"
                f" refused with APP_ENV=production unless OTP_IN_RESPONSE is {OTP_IN_RESPONSE_CONSENT}"
            )
        if self.login.otp_sender == "twilio" and not self.login.otp_countries:
            raise ValueError(
                "OTP_COUNTRIES must be set with OTP_SENDER=twilio and APP_ENV=production, to countries such as IN,DE:"
                " otherwise anybody can have codes sent to numbers that are expensive"
            )
        if self.login.otp_sender == "console":
            raise ValueError("OTP_SENDER must not be console with APP_ENV=production: codes would be in its output")
        return self
