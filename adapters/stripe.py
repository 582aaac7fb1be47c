"""Payments through Stripe. Amounts, currency and product names are those of the price; none is known here."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import aiohttp
import stripe
import structlog
from stripe.params.checkout import SessionCreateParams

from application.ports.billing import CheckoutState, CustomerGone, PaymentEvent, PaymentGateway
from domain.billing import BillingAccount, Checkout, Subscription, SubscriptionStatus
from domain.errors import PaymentsRefused, PaymentsUnavailable, WebhookInvalid
from domain.ids import UserId

log = structlog.get_logger(__name__)

T = TypeVar("T")

SIGNED_SECONDS = 300
_CALLS_AT_ONCE = 8  # a process's; Stripe allows 25 calls a second in test mode, 100 in live mode
_FAILURES_KEPT = 10_000
_SIGNED_AT = re.compile(r"(?:^|,)t=([^,]*)")
_SECONDS = re.compile(r"[0-9]{1,12}")
_EVENTS = {
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "checkout.session.expired",
    "customer.deleted",
    "invoice.paid",
    "invoice.payment_failed",
    "charge.refunded",
    "charge.dispute.created",
    "charge.dispute.closed",
}
_SUBSCRIPTION_EVENTS = "customer.subscription."


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutPage:
    """What the checkout and the portal are like. The price is what is sold now; `prices` all that mean Pro."""

    price: str
    prices: frozenset[str]
    success_url: str
    cancel_url: str
    portal_return_url: str
    promotion_codes: bool = False
    automatic_tax: bool = False


class StripeGateway(PaymentGateway):
    def __init__(
        self, *, key: str, webhook_secrets: Sequence[str], page: CheckoutPage, api_base: str, seconds: float
    ) -> None:
        self._key = key
        self._is_live = "_live_" in key
        self._secrets = webhook_secrets
        self._page = page
        self._api_base = api_base
        self._seconds = seconds
        self._places = asyncio.Semaphore(_CALLS_AT_ONCE)
        self._failures: dict[str, int] = {}
        self._http: stripe.AIOHTTPClient | None = None
        self._client: stripe.StripeClient | None = None

    async def start(self) -> None:
        # Half: a connection that has silently died must leave time for a second try.
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

    # --- what Stripe tells

    def read_event(self, body: bytes, signature: str | None, *, now: datetime) -> PaymentEvent | None:
        if not any(_is_signed(body, signature or "", secret) for secret in self._secrets):
            raise WebhookInvalid
        # Stripe's library looks at the past only, and so would take what is dated far ahead for ever. Of two times
        # it takes the first that it can read: "t=+1,t=2" must not be signed at one and new by the other.
        times = _SIGNED_AT.findall(signature or "")
        if len(times) != 1 or not _SECONDS.fullmatch(times[0]) or abs(now.timestamp() - int(times[0])) > SIGNED_SECONDS:
            raise WebhookInvalid
        try:
            event = json.loads(body)
            kind, told, is_live = event["type"], event["data"]["object"], event["livemode"]
            if not (isinstance(kind, str) and isinstance(told, dict)):
                raise TypeError
            event_id = _text(event["id"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise WebhookInvalid from None
        if event_id is None:
            raise WebhookInvalid
        if is_live is not self._is_live or not (kind in _EVENTS or kind.startswith(_SUBSCRIPTION_EVENTS)):
            return None
        is_checkout, metadata = kind.startswith("checkout.session."), told.get("metadata")
        if not isinstance(metadata, dict):
            metadata = None
        return PaymentEvent(
            id=event_id,
            customer_id=_text(told.get("id" if kind == "customer.deleted" else "customer")),
            payment_intent_id=_text(told.get("payment_intent")),
            checkout_id=_text(told.get("id")) if is_checkout else None,
            user_id=_named(told.get("client_reference_id"), metadata) if is_checkout else None,
        )

    # --- what Stripe does

    async def create_customer(self, user_id: UserId, *, name: str, number: int) -> str:
        params: stripe.params.CustomerCreateParams = {"name": name, "metadata": {"user_id": str(user_id)}}
        key = f"customer-{user_id}-{number}-{_digest(params)}"
        customer = await self._create(
            lambda client, options: client.v1.customers.create_async(params, options), "create_customer", key
        )
        return customer.id

    async def open_checkout(self, account: BillingAccount, customer_id: str) -> Checkout:
        metadata = {"user_id": str(account.user_id)}
        params: SessionCreateParams = {
            "mode": "subscription",
            "customer": customer_id,
            "client_reference_id": str(account.user_id),
            "line_items": [{"price": self._page.price, "quantity": 1}],
            "metadata": metadata,
            "subscription_data": {"metadata": metadata},
            "success_url": self._page.success_url,
            "cancel_url": self._page.cancel_url,
        }
        if self._page.promotion_codes:
            params["allow_promotion_codes"] = True
        if self._page.automatic_tax:
            params["automatic_tax"] = {"enabled": True}
            params["customer_update"] = {"address": "auto"}  # without an address there is nothing to tax by
        # The digest: after a change of settings the same key would be refused for its other parameters.
        key = f"checkout-{account.user_id}-{account.checkout_count}-{_digest(params)}"
        async with self._known(customer_id):
            session = await self._create(
                lambda client, options: client.v1.checkout.sessions.create_async(params, options), "open_checkout", key
            )
        if session.url is None:
            raise PaymentsRefused
        return Checkout(id=session.id, user_id=account.user_id, url=session.url, expires_at=_time(session.expires_at))

    async def open_portal(self, customer_id: str) -> str:
        params: stripe.params.billing_portal.SessionCreateParams = {
            "customer": customer_id,
            "return_url": self._page.portal_return_url,
        }
        async with self._known(customer_id):
            session = await self._call(
                lambda client: client.v1.billing_portal.sessions.create_async(params), "open_portal"
            )
        return session.url

    async def close_checkout(self, checkout_id: str) -> None:
        # Refused for one that has ended otherwise: then it is closed, too.
        with suppress(PaymentsRefused):
            await self._call(lambda client: client.v1.checkout.sessions.expire_async(checkout_id), "close_checkout")

    async def delete_customer(self, customer_id: str) -> None:
        async with self._known(customer_id):
            await self._call(lambda client: client.v1.customers.delete_async(customer_id), "delete_customer")

    @asynccontextmanager
    async def _known(self, customer_id: str) -> AsyncIterator[None]:
        """Raises CustomerGone from the block only for a customer that Stripe says was deleted.

        One it never heard of means that the key is of another account or mode; taking that for the end of
        a customer would cost those who pay their tier, and the right key could not bring it back.
        """
        try:
            yield
        except _Missing:
            customer = await self._call(lambda client: client.v1.customers.retrieve_async(customer_id), "customer")
            if getattr(customer, "deleted", False):
                raise CustomerGone from None
            raise

    # --- what is true

    async def checkout(self, checkout_id: str, user_id: UserId) -> CheckoutState | None:
        session = await self._call(
            lambda client: client.v1.checkout.sessions.retrieve_async(
                checkout_id, {"expand": ["line_items", "payment_intent.latest_charge"]}
            ),
            "checkout",
        )
        if session.livemode != self._is_live or _named(session.client_reference_id, session.metadata) != user_id:
            return None
        intent = session.payment_intent
        assert not isinstance(intent, str), "it was asked for in full"
        payment = None
        if session.mode == "payment" and session.payment_status in ("paid", "no_payment_required"):
            payment = await self._payment(session, intent, user_id)
        is_pending = session.status == "open" or (intent is not None and intent.status == "processing")
        return CheckoutState(
            checkout=Checkout(
                id=session.id,
                user_id=user_id,
                url=session.url if session.status == "open" else None,
                expires_at=_time(session.expires_at),
                payment_intent_id=intent.id if intent else None,
                settled=not is_pending and (payment is None or payment.status.has_ended),
            ),
            customer_id=_id(session.customer),
            payment=payment,
        )

    async def _payment(
        self, session: stripe.checkout.Session, intent: stripe.PaymentIntent | None, user_id: UserId
    ) -> Subscription:
        bought = [line.price.id for line in (session.line_items.data if session.line_items else []) if line.price]
        charge = intent.latest_charge if intent else None
        assert not isinstance(charge, str), "it was asked for in full"
        is_returned = charge is not None and (charge.refunded or (charge.disputed and await self._is_lost(charge.id)))
        return Subscription(
            id=session.id,
            user_id=user_id,
            status=SubscriptionStatus.CANCELED if is_returned else SubscriptionStatus.ACTIVE,
            price_id=self._of_ours(bought),
            created_at=_time(session.created),
        )

    async def _is_lost(self, charge_id: str) -> bool:
        disputes = await self._call(
            lambda client: client.v1.disputes.list_async({"charge": charge_id, "limit": 100}), "disputes"
        )
        return any(dispute.status == "lost" for dispute in disputes.data)

    async def subscriptions(self, customer_id: str, user_id: UserId) -> list[Subscription]:
        # A deleted customer still lists its subscriptions, all of them ended.
        customer = await self._call(lambda client: client.v1.customers.retrieve_async(customer_id), "customer")
        if getattr(customer, "deleted", False):
            raise CustomerGone
        page = await self._call(
            lambda client: client.v1.subscriptions.list_async({"customer": customer_id, "status": "all", "limit": 100}),
            "subscriptions",
        )
        return [
            await self._subscription(one, user_id)
            for one in page.data
            if one.livemode == self._is_live and _named(None, one.metadata) in (user_id, None)
        ]

    async def _subscription(self, told: stripe.Subscription, user_id: UserId) -> Subscription:
        items = told.items.data
        price_id = self._of_ours([item.price.id for item in items])
        item = next((item for item in items if item.price.id == price_id), None)
        ends = told.cancel_at
        if ends is None and told.cancel_at_period_end and item:
            ends = item.current_period_end
        status = _status(told.status)
        return Subscription(
            id=told.id,
            user_id=user_id,
            status=status,
            price_id=price_id,
            created_at=_time(told.created),
            current_period_end=_time(item.current_period_end) if item else None,
            cancel_at=_time(ends) if ends else None,
            past_due_since=await self._past_due_since(told.id, item) if status is SubscriptionStatus.PAST_DUE else None,
        )

    async def _past_due_since(self, subscription_id: str, item: stripe.SubscriptionItem | None) -> datetime | None:
        """When the oldest invoice came due that is open: the subscription itself does not say."""
        invoices = await self._call(
            lambda client: client.v1.invoices.list_async(
                {"subscription": subscription_id, "status": "open", "limit": 100}
            ),
            "invoices",
        )
        due = [invoice.status_transitions.finalized_at or invoice.created for invoice in invoices.data]
        if item:
            due = due or [item.current_period_start]
        return _time(min(due)) if due else None

    def _of_ours(self, prices: Sequence[str]) -> str:
        """The one that means Pro, if there is one among them."""
        return next((price for price in prices if price in self._page.prices), prices[0] if prices else "")

    async def _create(
        self, call: Callable[[stripe.StripeClient, stripe.RequestOptions], Awaitable[T]], name: str, key: str
    ) -> T:
        """Repeated with the same key, it creates nothing twice.

        But Stripe keeps its own failures too, and repeats them for a day to whoever repeats the key. So the next
        call after one takes another; what the failed one may have left is a page that nobody knows.
        """
        failures = self._failures.get(key, 0)
        options: stripe.RequestOptions = {"idempotency_key": f"{key}-{failures}" if failures else key}
        try:
            created = await self._call(lambda client: call(client, options), name)
        except _Failed:
            if len(self._failures) >= _FAILURES_KEPT:
                self._failures.clear()
            self._failures[key] = failures + 1
            raise
        self._failures.pop(key, None)
        return created

    async def _call(self, call: Callable[[stripe.StripeClient], Awaitable[T]], name: str) -> T:
        assert self._client is not None, "start() comes first"
        try:
            # The time is that of a call with all its repeats.
            async with self._places, asyncio.timeout(self._seconds):
                return await call(self._client)
        except stripe.InvalidRequestError as error:
            if error.code == "resource_missing" and error.param in ("customer", "id", "session"):
                raise _Missing from None
            raise _refused(name, error) from None
        except (stripe.APIConnectionError, stripe.RateLimitError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("payments_unavailable", call=name, error=type(error).__name__)
            raise PaymentsUnavailable from None
        except stripe.StripeError as error:
            status = error.http_status
            # One below 400 is an answer that cannot be read.
            if status is None or status < 400 or status >= 500 or status in (409, 429):
                log.warning("payments_unavailable", call=name, status=status)
                raise (_Failed if status is not None and status >= 500 else PaymentsUnavailable) from None
            raise _refused(name, error) from None


class _Failed(PaymentsUnavailable):
    """Stripe answered that it has failed, and will answer so again."""


class _Missing(PaymentsRefused):
    """There is no object with this id."""


def _refused(call: str, error: stripe.StripeError) -> PaymentsRefused:
    # Not the message, which may quote what was sent. Stripe's dashboard finds the request by its id.
    log.error("payments_refused", call=call, error=type(error).__name__, code=error.code, stripe_id=error.request_id)
    return PaymentsRefused()


def _is_signed(body: bytes, signature: str, secret: str) -> bool:
    try:
        stripe.WebhookSignature.verify_header(body, signature, secret)
    except (stripe.SignatureVerificationError, ValueError, TypeError):  # no UTF-8, or no ASCII in the header
        return False
    return True


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= 255 and value.isprintable() else None


def _id(value: Any) -> str | None:
    """Of what Stripe gives as an id or in full."""
    return value if value is None or isinstance(value, str) else str(value.id)


def _named(reference: object, metadata: Any) -> UserId | None:
    """The user that an object of Stripe's names: ours does it in both places, the former service in one of them."""
    for given in (
        reference,
        *((metadata[key] for key in ("user_id", "userId") if key in metadata) if metadata else ()),
    ):
        try:
            return UserId(UUID(given))
        except (ValueError, TypeError, AttributeError):
            continue
    return None


def _status(word: str) -> SubscriptionStatus:
    try:
        return SubscriptionStatus(word)
    except ValueError:  # a word of a later API
        return SubscriptionStatus.UNPAID


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _digest(params: Any) -> str:
    return hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:12]
