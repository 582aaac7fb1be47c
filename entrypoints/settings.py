"""Every setting, read once from the environment and checked before anything starts.

A field's name in capitals is its environment variable. An empty variable counts as unset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import phonenumbers
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

SERVERS = ("DATABASE_URL", "REDIS_URL")
SERVE_NEEDS = (*SERVERS, "ACCESS_TOKEN_SECRET")
WORKER_NEEDS = (*SERVERS, "GEMINI_API_KEY")
MIGRATE_NEEDS = ("DATABASE_URL",)

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
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    database_url: SecretStr = SecretStr("")
    redis_url: SecretStr = SecretStr("")
    redis_namespace: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] = "gemini-backend"
    data_dir: Path = Path(".data")

    access_token_secret: SecretStr = SecretStr("")
    access_token_seconds: Count = 3600
    otp_in_response: Literal["", "yes-this-is-a-demo"] = ""
    default_region: str = "IN"

    gemini_api_key: SecretStr = SecretStr("")
    gemini_base_url: str = ""
    gemini_model: str = "gemini-flash-latest"
    gemini_sdk: Literal["google-genai", "google-generativeai"] = "google-genai"
    gemini_max_rpm: Annotated[int, Field(ge=0)] = 0

    free_daily_messages: Annotated[int, Field(ge=0)] = 5
    rate_limits: Literal["on", "off"] = "on"
    basic_in_flight: Count = 3
    pro_in_flight: Count = 10
    pro_messages_per_minute: Count = 40

    worker_concurrency: Count = 512
    lease_seconds: Seconds = 10
    heartbeat_seconds: Seconds = 3
    sweep_seconds: Seconds = 2
    max_attempts: Count = 5
    max_message_minutes: Seconds = 10
    first_token_seconds: Seconds = 30
    reply_seconds: Seconds = 120

    header_seconds: Seconds = 5
    request_seconds: Seconds = 10
    keep_alive_seconds: Seconds = 65
    shutdown_seconds: Seconds = 25
    json_body_bytes: Count = 65_536
    header_bytes: Count = 16_384

    postgres_pool: Count = 20
    postgres_acquire_seconds: Seconds = 2
    postgres_statement_seconds: Seconds = 5
    redis_command_seconds: Seconds = 0.5

    @property
    def is_production(self) -> bool:
        return self.app_env == "production"

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)

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

    @field_validator("database_url")
    @classmethod
    def _postgres_url(cls, value: SecretStr) -> SecretStr:
        return _url(value, "postgres", "postgresql")

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: SecretStr) -> SecretStr:
        return _url(value, "redis", "rediss")

    @field_validator("gemini_base_url")
    @classmethod
    def _http_url(cls, value: str) -> str:
        return _url(SecretStr(value), "http", "https").get_secret_value().rstrip("/")

    @field_validator("default_region")
    @classmethod
    def _region(cls, value: str) -> str:
        if value not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError("must be a two-letter region such as IN or DE")
        return value

    @field_validator("access_token_secret")
    @classmethod
    def _strong_secret(cls, value: SecretStr) -> SecretStr:
        secret = value.get_secret_value()
        if len(secret.encode()) < 32 or len(set(secret)) < 8:
            raise ValueError("is too weak: at least 32 random bytes, for instance from 'openssl rand -hex 32'")
        return value

    @model_validator(mode="after")
    def _heartbeat_within_lease(self) -> Self:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError("HEARTBEAT_SECONDS must be at most half of LEASE_SECONDS")
        return self

    @model_validator(mode="after")
    def _limits_in_production(self) -> Self:
        if self.is_production and self.rate_limits == "off":
            raise ValueError("RATE_LIMITS must be on with APP_ENV=production")
        return self

    @model_validator(mode="after")
    def _no_codes_in_production_replies(self) -> Self:
        if self.is_production and self.otp_in_response != OTP_IN_RESPONSE_CONSENT:
            raise ValueError(
                "OTP_IN_RESPONSE: one-time codes would be handed out in replies, which lets anybody log in as anybody;"
                f" refused with APP_ENV=production unless set to {OTP_IN_RESPONSE_CONSENT}"
            )
        return self


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
        case "literal_error":
            text = f"must be {context['expected']}"
        case "int_parsing" | "int_from_float" | "int_type":
            text = "must be a whole number"
        case "float_parsing" | "finite_number":
            text = "must be a number"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            words = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
            text = "must be " + next(f"{word} {context[key]}" for key, word in words.items() if key in context)
        case _:
            text = "is not valid"
    return " ".join([*(str(part).upper() for part in error["loc"]), text]) + "."
