"""Payments through Stripe. The price in the settings decides amount, currency and product."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import stripe
from stripe.params.checkout import SessionCreateParams

from adapters.stripe.client import ObjectMissing, StripeClient
from adapters.stripe.events import check_signature, read_event
from adapters.stripe.objects import id_of, status_of, time_of, user_named_in
from application.ports.billing import CheckoutState, CustomerGone, CustomerMismatched, PaymentEvent, PaymentGateway
from application.ports.runtime import Described, Fact
from domain.billing import BillingAccount, Checkout, Subscription, SubscriptionStatus
from domain.errors import PaymentsRefused
from domain.ids import UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutPage:
    """How the checkout and the portal look. `price` is on sale now; any of `prices` means Pro."""

    price: str
    prices: frozenset[str]
    success_url: str
    cancel_url: str
    portal_return_url: str
    promotion_codes: bool = False
    automatic_tax: bool = False


class StripeGateway(PaymentGateway, Described):
    def __init__(
        self, *, key: str, webhook_secrets: Sequence[str], page: CheckoutPage, api_base: str, seconds: float
    ) -> None:
        self._client = StripeClient(key=key, api_base=api_base, seconds=seconds)
        self._is_live = "_live_" in key
        self._secrets = webhook_secrets
        self._page = page

    async def start(self) -> None:
        await self._client.start()

    async def close(self) -> None:
        await self._client.close()

    async def describe(self) -> list[Fact]:
        try:
            price = await self._client.call(lambda client: client.v1.prices.retrieve_async(self._page.price), "price")
        except PaymentsRefused:
            sentence = "Stripe does not accept STRIPE_SECRET_KEY, or does not know STRIPE_PRICE_ID."
            raise PaymentsRefused(sentence) from None
        recurs = price.recurring is not None and price.active
        warning = "" if recurs else "STRIPE_PRICE_ID must be an active price that recurs."
        interval = price.recurring.interval if price.recurring else "once"
        return [
            Fact("mode", "live" if self._is_live else "test"),
            Fact("price", f"{price.unit_amount} of the smallest unit of {price.currency}, per {interval}", warning),
            Fact("webhook", f"signing secrets: {len(self._secrets)}"),
        ]

    def read_event(self, body: bytes, signature: str | None, *, now: datetime) -> PaymentEvent | None:
        check_signature(body, signature or "", secrets=self._secrets, now=now)
        return read_event(body, is_live=self._is_live)

    # --- changes at Stripe

    async def create_customer(self, user_id: UserId, *, name: str, number: int) -> str:
        params: stripe.params.CustomerCreateParams = {"name": name, "metadata": {"user_id": str(user_id)}}
        key = f"customer-{user_id}-{number}-{_digest(params)}"
        customer = await self._client.create(
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
            params["customer_update"] = {"address": "auto"}  # tax needs an address
        # With the digest, because Stripe refuses the same key with other parameters, as after a change of settings.
        key = f"checkout-{account.user_id}-{account.checkout_count}-{_digest(params)}"
        async with self._existing_customer(customer_id), self._matching_customer(customer_id):
            session = await self._client.create(
                lambda client, options: client.v1.checkout.sessions.create_async(params, options), "open_checkout", key
            )
        if session.url is None:
            raise PaymentsRefused
        return Checkout(id=session.id, user_id=account.user_id, url=session.url, expires_at=time_of(session.expires_at))

    async def open_portal(self, customer_id: str) -> str:
        params: stripe.params.billing_portal.SessionCreateParams = {
            "customer": customer_id,
            "return_url": self._page.portal_return_url,
        }
        async with self._existing_customer(customer_id):
            session = await self._client.call(
                lambda client: client.v1.billing_portal.sessions.create_async(params), "open_portal"
            )
        return session.url

    async def close_checkout(self, checkout_id: str) -> None:
        # Stripe refuses to close a checkout that has ended otherwise.
        with suppress(PaymentsRefused):
            await self._client.call(
                lambda client: client.v1.checkout.sessions.expire_async(checkout_id), "close_checkout"
            )

    async def delete_customer(self, customer_id: str) -> None:
        async with self._existing_customer(customer_id):
            await self._client.call(lambda client: client.v1.customers.delete_async(customer_id), "delete_customer")

    @asynccontextmanager
    async def _existing_customer(self, customer_id: str) -> AsyncIterator[None]:
        """Raises CustomerGone from the block only if Stripe says that the customer was deleted.

        An unknown customer means that the key belongs to another account or mode. Treating that as a deletion would
        cost paying users their tier, and the right key could not bring it back.
        """
        try:
            yield
        except ObjectMissing:
            customer = await self._client.call(
                lambda client: client.v1.customers.retrieve_async(customer_id), "customer"
            )
            if getattr(customer, "deleted", False):
                raise CustomerGone from None
            raise

    @asynccontextmanager
    async def _matching_customer(self, customer_id: str) -> AsyncIterator[None]:
        """Raises CustomerMismatched from the block if Stripe refuses it, and the currencies differ.

        Stripe's refusal has a text but no code.
        """
        try:
            yield
        except ObjectMissing:
            raise
        except PaymentsRefused:
            if await self._pays_otherwise(customer_id):
                raise CustomerMismatched from None
            raise

    async def _pays_otherwise(self, customer_id: str) -> bool:
        """Whether the customer has a currency, and it is not that of the price."""
        customer = await self._client.call(lambda client: client.v1.customers.retrieve_async(customer_id), "customer")
        currency = getattr(customer, "currency", None)
        if currency is None:
            return False
        price = await self._client.call(lambda client: client.v1.prices.retrieve_async(self._page.price), "price")
        return bool(currency != price.currency)

    # --- reads from Stripe

    async def checkout(self, checkout_id: str, user_id: UserId) -> CheckoutState | None:
        session = await self._client.call(
            lambda client: client.v1.checkout.sessions.retrieve_async(
                checkout_id, {"expand": ["line_items", "payment_intent.latest_charge"]}
            ),
            "checkout",
        )
        if session.livemode != self._is_live or user_named_in(session.client_reference_id, session.metadata) != user_id:
            return None
        intent = session.payment_intent
        assert not isinstance(intent, str), "it was requested in full"
        payment = None
        if session.mode == "payment" and session.payment_status in ("paid", "no_payment_required"):
            payment = await self._payment(session, intent, user_id)
        is_pending = session.status == "open" or (intent is not None and intent.status == "processing")
        return CheckoutState(
            checkout=Checkout(
                id=session.id,
                user_id=user_id,
                url=session.url if session.status == "open" else None,
                expires_at=time_of(session.expires_at),
                payment_intent_id=intent.id if intent else None,
                settled=not is_pending and (payment is None or payment.status.has_ended),
            ),
            customer_id=id_of(session.customer),
            payment=payment,
        )

    async def _payment(
        self, session: stripe.checkout.Session, intent: stripe.PaymentIntent | None, user_id: UserId
    ) -> Subscription:
        bought = [line.price.id for line in (session.line_items.data if session.line_items else []) if line.price]
        charge = intent.latest_charge if intent else None
        assert not isinstance(charge, str), "it was requested in full"
        is_returned = charge is not None and (charge.refunded or (charge.disputed and await self._is_lost(charge.id)))
        return Subscription(
            id=session.id,
            user_id=user_id,
            status=SubscriptionStatus.CANCELED if is_returned else SubscriptionStatus.ACTIVE,
            price_id=self._pro_price(bought),
            created_at=time_of(session.created),
        )

    async def _is_lost(self, charge_id: str) -> bool:
        disputes = await self._client.call(
            lambda client: client.v1.disputes.list_async({"charge": charge_id, "limit": 100}), "disputes"
        )
        return any(dispute.status == "lost" for dispute in disputes.data)

    async def subscriptions(self, customer_id: str, user_id: UserId) -> list[Subscription]:
        # Stripe still lists a deleted customer's subscriptions, all of them ended.
        customer = await self._client.call(lambda client: client.v1.customers.retrieve_async(customer_id), "customer")
        if getattr(customer, "deleted", False):
            raise CustomerGone
        page = await self._client.call(
            lambda client: client.v1.subscriptions.list_async({"customer": customer_id, "status": "all", "limit": 100}),
            "subscriptions",
        )
        return [
            await self._subscription(remote, user_id)
            for remote in page.data
            if remote.livemode == self._is_live and user_named_in(None, remote.metadata) in (user_id, None)
        ]

    async def _subscription(self, remote: stripe.Subscription, user_id: UserId) -> Subscription:
        items = remote.items.data
        price_id = self._pro_price([item.price.id for item in items])
        item = next((item for item in items if item.price.id == price_id), None)
        ends = remote.cancel_at
        if ends is None and remote.cancel_at_period_end and item:
            ends = item.current_period_end
        status = status_of(remote.status)
        is_paused = remote.pause_collection is not None and not status.has_ended
        return Subscription(
            id=remote.id,
            user_id=user_id,
            status=status,
            price_id=price_id,
            created_at=time_of(remote.created),
            current_period_end=time_of(item.current_period_end) if item else None,
            cancel_at=time_of(ends) if ends else None,
            unpaid_from=await self._paid_until(remote) if is_paused else None,
            past_due_since=await self._past_due_since(remote.id, item)
            if status is SubscriptionStatus.PAST_DUE
            else None,
        )

    async def _paid_until(self, remote: stripe.Subscription) -> datetime:
        """The end of the last period that was paid for: while collection is paused, later ones are not."""
        invoices = await self._client.call(
            lambda client: client.v1.invoices.list_async({"subscription": remote.id, "status": "paid", "limit": 10}),
            "invoices",
        )
        ends = [line.period.end for invoice in invoices.data for line in invoice.lines.data]
        return time_of(max(ends, default=remote.start_date))

    async def _past_due_since(self, subscription_id: str, item: stripe.SubscriptionItem | None) -> datetime | None:
        """When the oldest open invoice came due: the subscription itself does not say."""
        invoices = await self._client.call(
            lambda client: client.v1.invoices.list_async(
                {"subscription": subscription_id, "status": "open", "limit": 100}
            ),
            "invoices",
        )
        due = [invoice.status_transitions.finalized_at or invoice.created for invoice in invoices.data]
        if item:
            due = due or [item.current_period_start]
        return time_of(min(due)) if due else None

    def _pro_price(self, prices: Sequence[str]) -> str:
        """The one that means Pro, if there is one; else the first."""
        return next((price for price in prices if price in self._page.prices), prices[0] if prices else "")


def _digest(params: Any) -> str:
    return hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:12]
