"""Rate limits: the rules, their application to a call, and the headers that report them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from ipaddress import ip_network

import structlog
from sanic import Request

from application.accounts.sessions import Caller
from application.ports.accounts import MobileNumbers
from application.ports.runtime import Bucket, RateLimiter, Remaining
from domain.errors import RateLimited
from domain.rates import Rate
from entrypoints import metrics
from entrypoints.http.api.schemas.common import Schema
from entrypoints.http.server.addresses import Address, client_address
from entrypoints.settings import RateSettings, Settings

log = structlog.get_logger(__name__)

#: Of a number in E.164 format: its country code and its block.
PREFIX_CHARACTERS = 8


#: A rule by address counts the networks around an IPv6 address, too: a site that has a /64 often has a /56 or a /48.
#: Each allows this many times the rule.
IPV6_NETWORKS = {64: 1, 56: 4, 48: 16}


class Per(Enum):
    ADDRESS = auto()
    NUMBER_PREFIX = auto()
    USER = auto()
    SESSION = auto()


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    per: Per
    rate: Rate
    #: Counted by all processes together. Otherwise each counts by itself, which costs no round trip.
    shared: bool = True
    policy: str = field(init=False)
    """As the headers have it."""

    def __post_init__(self) -> None:
        policy = f'"{self.name}";q={self.rate.calls};w={math.ceil(self.rate.seconds)}'
        object.__setattr__(self, "policy", policy)


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
        Rule("writes", Per.USER, rates.writes),
        Rule("billing", Per.USER, rates.billing),
        # A session that floods must not keep its user from ending it.
        Rule("sessions", Per.SESSION, rates.sessions),
        # Messages have an allowance in Postgres; this bounds the calls that it refuses.
        Rule("messages", Per.USER, rates.messages, shared=False),
    )
    return {rule.name: rule for rule in rules}


class RateLimits:
    def __init__(
        self, settings: Settings, limiter: RateLimiter, own: RateLimiter, mobile_numbers: MobileNumbers
    ) -> None:
        self._limiter = limiter
        self._own = own
        self._mobile_numbers = mobile_numbers
        self._trusted_proxies = settings.http.trusted_proxies
        self._rules = rules_of(settings.rates) if settings.limits.enabled else {}

    def named(self, names: Sequence[str]) -> list[Rule]:
        """Empty while limits are off."""
        return [self._rules[name] for name in names] if self._rules else []

    async def apply(
        self,
        request: Request,
        rules: Sequence[Rule],
        *,
        caller: Caller | None = None,
        body: Schema | None = None,
        shared: bool = True,
    ) -> None:
        """Count the call. Raises RateLimited, and InvalidMobile for a rule by number."""
        buckets = [bucket for rule in rules for bucket in self._buckets(rule, request, caller, body)]
        decision = await (self._limiter if shared else self._own).hit(buckets)
        if shared and not decision.is_shared:
            metrics.RATE_LIMITS_IN_PROCESS.inc()
        if not shared and not decision.retry_after:
            return  # no header tells of a rule that each process counts by itself
        least = decision.remaining if len(buckets) == len(rules) else _least(rules, buckets, decision.remaining)
        request.ctx.rate_limit = _headers(rules, least)
        if decision.retry_after > 0:
            for rule, remaining in zip(rules, least, strict=True):
                if remaining.calls < 1:
                    metrics.RATE_LIMITED.labels(rule.name).inc()
            raise RateLimited(retry_after=decision.retry_after)

    def _buckets(self, rule: Rule, request: Request, caller: Caller | None, body: Schema | None) -> list[Bucket]:
        match rule.per:
            case Per.ADDRESS:
                networks = networks_of(client_address(request, self._trusted_proxies))
                return [
                    Bucket(rule.name, network, Rate(rule.rate.calls * times, rule.rate.seconds))
                    for network, times in networks
                ]
            case Per.NUMBER_PREFIX:
                mobile: str = getattr(body, "mobile")  # noqa: B009 - bodies of such calls have it
                subject = self._mobile_numbers.parse(mobile)[:PREFIX_CHARACTERS]
            case Per.USER | Per.SESSION:
                assert caller is not None, "there is nobody to count"
                subject = str(caller.user.id if rule.per is Per.USER else caller.session_id)
        return [Bucket(rule.name, subject, rule.rate)]


def networks_of(address: Address) -> list[tuple[str, int]]:
    """What counts as one caller, and how many times a rule it is allowed."""
    if address.version == 4:
        return [(str(address), 1)]
    return [(str(ip_network((address, bits), strict=False)), times) for bits, times in IPV6_NETWORKS.items()]


def _least(rules: Sequence[Rule], buckets: Sequence[Bucket], remaining: Sequence[Remaining]) -> list[Remaining]:
    """Of the buckets of each rule, what the fullest has left."""
    found: dict[str, Remaining] = {}
    for bucket, left in zip(buckets, remaining, strict=True):
        known = found.get(bucket.rule)
        found[bucket.rule] = left if known is None else min(known, left, key=lambda one: one.calls)
    return [found[rule.name] for rule in rules]


def _headers(rules: Sequence[Rule], remaining: Sequence[Remaining]) -> dict[str, str]:
    """In the format of draft-ietf-httpapi-ratelimit-headers."""
    return {
        "ratelimit-policy": ", ".join([rule.policy for rule in rules]),
        "ratelimit": ", ".join(
            [
                f'"{rule.name}";r={left.calls};t={math.ceil(left.resets_in)}'
                for rule, left in zip(rules, remaining, strict=True)
            ]
        ),
    }
