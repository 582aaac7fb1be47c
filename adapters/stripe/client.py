"""Calls to Stripe: how many at once, for how long, repeated without effect, and what their errors mean."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp
import stripe
import structlog

from domain.errors import PaymentsRefused, PaymentsUnavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")

_CONCURRENT_CALLS = 8  # per process; Stripe allows 25 calls a second in test mode, 100 in live mode
_FAILURES_KEPT = 10_000


class ObjectMissing(PaymentsRefused):
    """There is no object with this id."""


class _StripeFailed(PaymentsUnavailable):
    """Stripe answered with its own failure, and repeats that answer for this idempotency key."""


class StripeClient:
    def __init__(self, *, key: str, api_base: str, seconds: float) -> None:
        self._key = key
        self._api_base = api_base
        self._seconds = seconds
        self._concurrency = asyncio.Semaphore(_CONCURRENT_CALLS)
        self._failures: dict[str, int] = {}
        self._http: stripe.AIOHTTPClient | None = None
        self._client: stripe.StripeClient | None = None

    async def start(self) -> None:
        # Half of the time: a connection that has silently died must leave time for a second try.
        self._http = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=self._seconds / 2))
        self._client = stripe.StripeClient(
            self._key,
            base_addresses={"api": self._api_base} if self._api_base else {},
            http_client=self._http,
            max_network_retries=2,
        )

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close_async()  # type: ignore[no-untyped-call]

    async def create(
        self, call: Callable[[stripe.StripeClient, stripe.RequestOptions], Awaitable[T]], name: str, key: str
    ) -> T:
        """A call that is repeated with the same key creates nothing twice.

        Stripe stores its own failures too, and repeats them for a day under the same key. So the call after such a
        failure uses another key; what the failed one may have created is a page that nobody knows.
        """
        failures = self._failures.get(key, 0)
        options: stripe.RequestOptions = {"idempotency_key": f"{key}-{failures}" if failures else key}
        try:
            created = await self.call(lambda client: call(client, options), name)
        except _StripeFailed:
            if len(self._failures) >= _FAILURES_KEPT:
                self._failures.clear()
            self._failures[key] = failures + 1
            raise
        self._failures.pop(key, None)
        return created

    async def call(self, call: Callable[[stripe.StripeClient], Awaitable[T]], name: str) -> T:
        """Raises PaymentsUnavailable or PaymentsRefused; ObjectMissing if an id is unknown."""
        assert self._client is not None, "start() comes first"
        try:
            # The timeout covers the call with all its repetitions.
            async with self._concurrency, asyncio.timeout(self._seconds):
                return await call(self._client)
        except stripe.InvalidRequestError as error:
            if error.code == "resource_missing" and error.param in ("customer", "id", "session"):
                raise ObjectMissing from None
            raise _refused(name, error) from None
        except (stripe.APIConnectionError, stripe.RateLimitError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("payments_unavailable", call=name, error=type(error).__name__)
            raise PaymentsUnavailable from None
        except stripe.StripeError as error:
            status = error.http_status
            # A status below 400 means a reply that cannot be read.
            if status is None or status < 400 or status >= 500 or status in (409, 429):
                log.warning("payments_unavailable", call=name, status=status)
                raise (_StripeFailed if status is not None and status >= 500 else PaymentsUnavailable) from None
            raise _refused(name, error) from None


def _refused(call: str, error: stripe.StripeError) -> PaymentsRefused:
    # Not the message, which may quote the request. Stripe's dashboard finds the request by its id.
    log.error(
        "payments_refused",
        call=call,
        error=type(error).__name__,
        code=error.code,
        param=getattr(error, "param", None),
        stripe_id=error.request_id,
    )
    return PaymentsRefused()
