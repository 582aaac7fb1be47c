"""Rate limits: the rules, their application to a call, and the headers that report them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

import structlog
from sanic import Request

from application.ports.accounts import MobileNumbers
from application.ports.runtime import Bucket, RateLimiter, Remaining
from domain.errors import RateLimited
from domain.ids import UserId
from domain.rates import Rate
from entrypoints import metrics
from entrypoints.http.api.schemas.common import Schema
from entrypoints.http.server.addresses import bucket_of, client_address
from entrypoints.settings import RateSettings, Settings

log = structlog.get_logger(__name__)

#: Of a number in E.164 format: its country code and its block.
PREFIX_CHARACTERS = 8


class Per(Enum):
    ADDRESS = auto()
    NUMBER_PREFIX = auto()
    USER = auto()


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    per: Per
    rate: Rate


def rules_of(rates: RateSettings) -> dict[str, Rule]:
    """The rules by the names that endpoints are declared with. Each has a setting."""
    rules = (
        Rule("signup", Per.ADDRESS, rates.signup),
        Rule("login", Per.ADDRESS, rates.login),
        Rule("verify", Per.ADDRESS, rates.verify),
        Rule("refresh", Per.ADDRESS, rates.refresh),
        Rule("codes", Per.ADDRESS, rates.codes),
        Rule("codes-prefix", Per.NUMBER_PREFIX, rates.codes_prefix),
        Rule("reads", Per.USER, rates.reads),
    )
    return {rule.name: rule for rule in rules}


class RateLimits:
    def __init__(self, settings: Settings, limiter: RateLimiter, mobile_numbers: MobileNumbers) -> None:
        self._limiter = limiter
        self._mobile_numbers = mobile_numbers
        self._trusted_proxies = settings.http.trusted_proxies
        self._rules = rules_of(settings.rates) if settings.limits.enabled else {}

    def named(self, names: Sequence[str]) -> list[Rule]:
        """Empty while limits are off."""
        return [self._rules[name] for name in names] if self._rules else []

    async def apply(
        self, request: Request, rules: Sequence[Rule], *, user_id: UserId | None = None, body: Schema | None = None
    ) -> None:
        """Count the call. Raises RateLimited, and InvalidMobile for a rule by number."""
        buckets = [Bucket(rule.name, self._subject(rule.per, request, user_id, body), rule.rate) for rule in rules]
        decision = await self._limiter.hit(buckets)
        if not decision.is_shared:
            metrics.RATE_LIMITS_IN_PROCESS.inc()
        request.ctx.rate_limit = _headers(rules, decision.remaining)
        if decision.retry_after > 0:
            for rule, remaining in zip(rules, decision.remaining, strict=True):
                if remaining.calls < 1:
                    metrics.RATE_LIMITED.labels(rule.name).inc()
            raise RateLimited(retry_after=decision.retry_after)

    def _subject(self, per: Per, request: Request, user_id: UserId | None, body: Schema | None) -> str:
        match per:
            case Per.ADDRESS:
                return bucket_of(client_address(request, self._trusted_proxies))
            case Per.NUMBER_PREFIX:
                mobile: str = getattr(body, "mobile")  # noqa: B009 - bodies of such calls have it
                return self._mobile_numbers.parse(mobile)[:PREFIX_CHARACTERS]
            case Per.USER:
                return str(user_id)


def _headers(rules: Sequence[Rule], remaining: Sequence[Remaining]) -> dict[str, str]:
    """In the format of draft-ietf-httpapi-ratelimit-headers."""
    return {
        "ratelimit-policy": ", ".join(
            f'"{rule.name}";q={rule.rate.calls};w={math.ceil(rule.rate.seconds)}' for rule in rules
        ),
        "ratelimit": ", ".join(
            f'"{rule.name}";r={left.calls};t={math.ceil(left.resets_in)}'
            for rule, left in zip(rules, remaining, strict=True)
        ),
    }
