"""The types of settings: how the text of a variable is read, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

import phonenumbers
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from adapters.redis_url import parse_redis_url
from domain.chat.calls import ThinkingLevel
from domain.rates import Rate

UNSET = SecretStr("")
DEFAULT_THOUGHT_TOKENS = "minimal=1024,low=8192,medium=24576,high=32768"


def written(default: str, **field: Any) -> Any:
    """A default in the form that it has in the environment."""
    return Field(default, validate_default=True, **field)


def split(text: str) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def secrets(values: Iterable[SecretStr]) -> list[str]:
    return [value.get_secret_value() for value in values]


def _form(form: str, parse: Callable[[str], object]) -> BeforeValidator:
    """Text of that form. Whatever is wrong with it, the message names the form and never the text."""

    def read(text: str) -> object:
        try:
            return parse(text)
        except (ValueError, LookupError):
            raise ValueError(f"must be {form}") from None

    return BeforeValidator(read)


def _match(pattern: str, text: str) -> re.Match[str]:
    if (found := re.fullmatch(pattern, text, re.ASCII)) is None:
        raise ValueError
    return found


def _rate(text: str) -> Rate:
    calls, seconds = _match(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text).groups()
    return Rate(int(calls), int(seconds))


def _thought_tokens(text: str) -> dict[ThinkingLevel, int]:
    """Levels that are not named keep their default."""
    pattern = rf"({'|'.join(ThinkingLevel)})=(\d{{1,5}})"
    pairs = (_match(pattern, word).groups() for word in split(f"{DEFAULT_THOUGHT_TOKENS},{text}"))
    return {ThinkingLevel(level): int(tokens) for level, tokens in pairs}


def _parts(text: str, schemes: Sequence[str]) -> SplitResult:
    parts = urlsplit(text)
    if parts.scheme not in schemes or not parts.hostname or parts.port == 0:  # a port above 65535 raises by itself
        raise ValueError
    return parts


def _url(*schemes: str) -> BeforeValidator:
    def parse(text: str) -> str:
        _parts(text, schemes)
        return text

    return _form(f"a URL that starts with {' or '.join(f'{scheme}://' for scheme in schemes)}, with a host", parse)


def _redis_url(text: str) -> str:
    if text:
        parse_redis_url(text)
    return text


def _postgres_url(text: str) -> str:
    from adapters.postgres.dsn import read  # imported here: `--help` needs no driver, which takes a tenth of a second

    if text:
        read(text)
    return text.strip()


def _origin(text: str) -> str:
    parts = _parts(text, ("http", "https"))
    if parts.path or parts.query or parts.fragment or parts.username:
        raise ValueError
    return text.lower()


def _region(text: str) -> str:
    if text not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError
    return text


def _strong(secret: str) -> str:
    if len(secret.encode()) < 32 or len(set(secret)) < 8:
        raise ValueError("is too weak: at least 32 random bytes, for instance from 'openssl rand -hex 32'")
    return secret


def _with_code(message: str) -> str:
    if message and message.count("{code}") != 1:
        raise ValueError("must contain {code} once, where the code goes")
    return message


def _installed(name: str) -> str:
    try:
        if name != "rest":
            distribution(name)
    except PackageNotFoundError:
        raise ValueError(f"{name} is not installed: it comes with the extra of that name") from None
    return name


Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Pause = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Port = Annotated[int, Field(ge=0, le=65535)]
Switch = Annotated[bool, _form("'on' or 'off'", {"on": True, "off": False}.__getitem__)]
Found = Literal["auto", "on", "off"]
PerWindow = Annotated[Rate, _form("calls/seconds such as 30/300", _rate)]
Words = Annotated[tuple[str, ...], BeforeValidator(split)]
Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(split)]
StrongSecret = Annotated[SecretStr, BeforeValidator(_strong)]
StrongSecrets = Annotated[tuple[StrongSecret, ...], BeforeValidator(split)]
#: A copied key often ends with a line break.
HeaderSecret = Annotated[
    SecretStr, _form("printable ASCII without spaces", lambda text: _match(r"[!-~]*", text.strip())[0])
]
PostgresUrl = Annotated[SecretStr, BeforeValidator(_postgres_url)]
RedisUrl = Annotated[SecretStr, BeforeValidator(_redis_url)]
HttpUrl = Annotated[str, _url("http", "https"), AfterValidator(lambda text: text.rstrip("/"))]
SecretHttpUrl = Annotated[SecretStr, _url("http", "https")]
Origins = Annotated[
    frozenset[str],
    _form(
        "origins such as https://app.example.com, separated by commas",
        lambda text: frozenset(map(_origin, split(text))),
    ),
]
Networks = Annotated[
    tuple[IPv4Network | IPv6Network, ...],
    _form(
        "addresses or networks such as 10.0.0.0/8, separated by commas",
        lambda text: tuple(map(ip_network, split(text))),
    ),
]
Region = Annotated[str, _form("a two-letter region such as IN or DE", _region)]
Regions = Annotated[
    frozenset[str],
    _form("two-letter regions such as IN,DE, separated by commas", lambda text: frozenset(map(_region, split(text)))),
]
ThoughtTokens = Annotated[
    dict[ThinkingLevel, int],
    _form("levels with tokens such as low=8192,high=32768, separated by commas", _thought_tokens),
]
MessageWithCode = Annotated[str, Field(max_length=480), AfterValidator(_with_code)]
Sdk = Annotated[Literal["rest", "google-genai", "google-generativeai"], AfterValidator(_installed)]
