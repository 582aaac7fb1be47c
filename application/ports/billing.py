"""What the billing use cases need from the outside."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from application.ports.runtime import Resource
from domain.billing import BillingAccount, Checkout, Subscription
from domain.ids import UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentEvent:
    """What Stripe tells: that something changed, and about whom. What is true now is read, not told.

    `user_id` is whom a checkout names itself.
    """

    id: str
    customer_id: str | None = None
    payment_intent_id: str | None = None
    checkout_id: str | None = None
    user_id: UserId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutState:
    """How a checkout stands. `payment` is the single payment made on it, as a subscription."""

    checkout: Checkout
    customer_id: str | None = None
    payment: Subscription | None = None


class CustomerGone(Exception):
    """The customer was deleted at Stripe."""


class PaymentGateway(Resource, Protocol):
    """Stripe. Every verb may raise PaymentsUnavailable (try again) or PaymentsRefused (do not)."""

    @abstractmethod
    def read_event(self, body: bytes, signature: str | None, *, now: datetime) -> PaymentEvent | None:
        """Raises WebhookInvalid unless Stripe signed these very bytes within five minutes of `now`.

        None for an event that can change nobody's tier, or of the other mode (test, live).
        """

    @abstractmethod
    async def create_customer(self, user_id: UserId, *, name: str, number: int) -> str:
        """The id of the user's customer number so-and-so: asked again, the same one."""

    @abstractmethod
    async def open_checkout(self, account: BillingAccount, customer_id: str) -> Checkout:
        """The account's next checkout for Pro: asked again for the same, the same one. Raises CustomerGone."""

    @abstractmethod
    async def open_portal(self, customer_id: str) -> str:
        """The address of a page where the customer manages the subscription. Raises CustomerGone."""

    @abstractmethod
    async def close_checkout(self, checkout_id: str) -> None:
        """Nobody can pay on it any more. Closing one that is closed, or paid, has no effect."""

    @abstractmethod
    async def delete_customer(self, customer_id: str) -> None:
        """Delete the customer, which cancels every subscription at once. Raises CustomerGone."""

    @abstractmethod
    async def checkout(self, checkout_id: str, user_id: UserId) -> CheckoutState | None:
        """None if it names another user."""

    @abstractmethod
    async def subscriptions(self, customer_id: str, user_id: UserId) -> list[Subscription]:
        """All the customer ever had, but for those that name another user. Raises CustomerGone."""


class BillingAccounts(Protocol):
    """What is stored of users' dealings with Stripe; and, like `Messages`, a queue of those to be read anew.

    Leases and due times run by the store's own clock. An account is claimable when it is due and
    has no lease, or an expired one.
    """

    @abstractmethod
    async def subscriptions(self, user_id: UserId) -> list[Subscription]:
        """As last read, the latest first."""

    @abstractmethod
    async def customer(self, user_id: UserId) -> str | None: ...

    @abstractmethod
    async def open_checkouts(self, user_id: UserId) -> list[Checkout]:
        """Those that lead somewhere, as far as is known."""

    @abstractmethod
    async def begin_checkout(
        self, user_id: UserId, *, open_until: datetime, busy_for: timedelta
    ) -> BillingAccount | Checkout | None:
        """The checkout that is open until then at least; or, for one caller at a time, the account to open one for.

        None while another caller has it, who must end it by `add_checkout` or `unlock_checkout`
        within `busy_for`. Raises AlreadySubscribed if a stored subscription has not ended, UserNotFound if
        the user was deleted meanwhile.
        """

    @abstractmethod
    async def lock_checkout(self, user_id: UserId, *, busy_for: timedelta) -> bool:
        """Have nobody begin one until `unlock_checkout`, or for `busy_for`. False while another caller has it.

        Raises UserNotFound if the user was deleted meanwhile.
        """

    @abstractmethod
    async def add_customer(self, user_id: UserId, customer_id: str) -> bool:
        """Keep the customer, which counts as one more.

        False changes nothing: it is another user's, or this one has another already.
        """

    @abstractmethod
    async def drop_customer(self, user_id: UserId, customer_id: str) -> None:
        """Forget the customer, which is no more."""

    @abstractmethod
    async def add_checkout(self, checkout: Checkout, *, due_in: timedelta) -> None:
        """Keep the checkout just opened, which counts as one more and as a change; due after `due_in` at the latest."""

    @abstractmethod
    async def unlock_checkout(self, user_id: UserId) -> None: ...

    @abstractmethod
    async def add_event(self, event: PaymentEvent) -> list[UserId]:
        """Keep the event's id and make the accounts that it is about due, both or neither.

        Returns whose these are: seldom more than one, if a checkout names another user than its customer is.
        Empty if it is nobody's we know, or if the event was kept before: then nothing changes. A checkout
        that we have not opened is kept too if it names a user of ours.
        """

    @abstractmethod
    async def claim(self, user_id: UserId, *, lease: timedelta) -> tuple[BillingAccount, list[Checkout]] | None:
        """Take the account for one reading, with its checkouts that are not settled; None if it is not claimable."""

    @abstractmethod
    async def finish(
        self,
        account: BillingAccount,
        *,
        subscriptions: Sequence[Subscription],
        checkouts: Sequence[Checkout],
        pro_until: datetime | None,
        due_in: timedelta | None,
    ) -> bool:
        """Write what was read if this attempt still holds the account; False changes nothing.

        The subscriptions replace the stored ones. Due again after `due_in`, or now if something
        changed since the claim.
        """

    @abstractmethod
    async def retry(self, account: BillingAccount, *, delay: timedelta) -> None:
        """After a failure: due after `delay`, or 5 s if something changed, if this attempt still holds it."""

    @abstractmethod
    async def make_due(self, user_id: UserId | None = None) -> int:
        """Have this account read anew, or all that there are, as soon as possible; returns how many."""

    @abstractmethod
    async def take_due(self, *, limit: int, quiet: timedelta) -> list[UserId]:
        """Claimable accounts that no worker was notified of for `quiet`, the longest due first.

        They count as notified from now on. Callers at the same time get different ones.
        """

    @abstractmethod
    async def purge_events(self, *, received_before: datetime) -> None: ...
