"""The ports of the billing use cases."""

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
    """A notice from Stripe that something changed, and about whom. What is true now is read from Stripe.

    `user_id` is the user that a checkout names.
    """

    id: str
    customer_id: str | None = None
    payment_intent_id: str | None = None
    checkout_id: str | None = None
    user_id: UserId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutState:
    """A checkout as Stripe has it. `payment` is the single payment made on it, as a subscription."""

    checkout: Checkout
    customer_id: str | None = None
    payment: Subscription | None = None


class CustomerGone(Exception):
    """The customer was deleted at Stripe."""


class CustomerMismatched(Exception):
    """The customer pays in another currency than that of the price, which Stripe never lets it change."""


class PaymentGateway(Resource, Protocol):
    """Stripe. Every verb may raise PaymentsUnavailable (try again) or PaymentsRefused (do not)."""

    @abstractmethod
    def read_event(self, body: bytes, signature: str | None, *, now: datetime) -> PaymentEvent | None:
        """Raises WebhookInvalid unless Stripe signed exactly these bytes within five minutes of `now`.

        None for an event that can change nobody's tier, or of the other mode (test, live).
        """

    @abstractmethod
    async def create_customer(self, user_id: UserId, *, name: str, number: int) -> str:
        """The id of the user's customer with this number; idempotent."""

    @abstractmethod
    async def open_checkout(self, account: BillingAccount, customer_id: str) -> Checkout:
        """The account's next checkout for Pro; idempotent until the account counts it.

        Raises CustomerGone or CustomerMismatched.
        """

    @abstractmethod
    async def open_portal(self, customer_id: str) -> str:
        """The URL of a page where the customer manages the subscription. Raises CustomerGone."""

    @abstractmethod
    async def close_checkout(self, checkout_id: str) -> None:
        """Let nobody pay on it any more. No effect on one that is closed or paid."""

    @abstractmethod
    async def delete_customer(self, customer_id: str) -> None:
        """Delete the customer, which cancels every subscription at once. Raises CustomerGone."""

    @abstractmethod
    async def checkout(self, checkout_id: str, user_id: UserId) -> CheckoutState | None:
        """None if it names another user."""

    @abstractmethod
    async def subscriptions(self, customer_id: str, user_id: UserId) -> list[Subscription]:
        """All that the customer ever had, except those that name another user. Raises CustomerGone."""


class Customers(Protocol):
    """Which customer of Stripe's a user is."""

    @abstractmethod
    async def customer(self, user_id: UserId) -> str | None: ...

    @abstractmethod
    async def add_customer(self, user_id: UserId, customer_id: str) -> bool:
        """Store the customer and count it.

        False changes nothing: it is another user's, or this user has another already.
        """

    @abstractmethod
    async def drop_customer(self, user_id: UserId, customer_id: str) -> None:
        """Forget this customer, which does not exist any more."""


@dataclass(frozen=True, slots=True)
class CheckoutLock:
    """The caller alone may open the account's next checkout."""

    account: BillingAccount


class CheckoutBusy:
    """Another caller holds the lock."""


CheckoutStart = Checkout | CheckoutLock | CheckoutBusy
"""The checkout that is open already, or who may open one."""


class Checkouts(Protocol):
    """The checkouts that were opened for users. One caller at a time holds a user's lock and opens one."""

    @abstractmethod
    async def open_checkouts(self, user_id: UserId) -> list[Checkout]:
        """Those that are open, as far as is known."""

    @abstractmethod
    async def begin_checkout(self, user_id: UserId, *, open_until: datetime, lock_for: timedelta) -> CheckoutStart:
        """The checkout that stays open until then at least, or else the lock.

        The lock ends with `add_checkout`, with `unlock_checkout`, or after `lock_for`. Raises AlreadySubscribed if a
        stored subscription has not ended, UserNotFound if the user was deleted concurrently.
        """

    @abstractmethod
    async def lock_checkout(self, user_id: UserId, *, lock_for: timedelta) -> bool:
        """Let nobody open a checkout until `unlock_checkout`, or for `lock_for`. False if another caller has the lock.

        Raises UserNotFound if the user was deleted concurrently.
        """

    @abstractmethod
    async def unlock_checkout(self, user_id: UserId) -> None: ...

    @abstractmethod
    async def add_checkout(self, checkout: Checkout, *, due_in: timedelta) -> None:
        """Store the new checkout, count it and the change, and unlock. A sync is due after `due_in` at the latest."""

    @abstractmethod
    async def purge_checkouts(self, *, expired_before: datetime) -> None:
        """Remove those that are settled: an event about one of them has no effect any more."""


class Subscriptions(Protocol):
    @abstractmethod
    async def subscriptions(self, user_id: UserId) -> list[Subscription]:
        """As last read, the latest first."""


class PaymentEvents(Protocol):
    """The ids of Stripe's events, each of which has its effect once."""

    @abstractmethod
    async def add_event(self, event: PaymentEvent) -> list[UserId]:
        """Store the event's id and make the accounts that it concerns due, both or neither.

        Returns their users: seldom more than one, if a checkout names another user than its customer's. Empty if
        nobody is known, or if the event was stored before: then nothing changes. A checkout that was not opened
        here is stored too if it names an existing user.
        """

    @abstractmethod
    async def purge_events(self, *, received_before: datetime) -> None: ...


@dataclass(frozen=True, slots=True)
class ClaimedSync:
    """An account taken for one sync, with its checkouts that are not settled."""

    account: BillingAccount
    checkouts: list[Checkout]


class SyncJobs(Protocol):
    """The queue of accounts to be read from Stripe.

    Leases and due times follow the store's clock. An account is claimable when it is due and has no lease, or an
    expired one.
    """

    @abstractmethod
    async def claim(self, user_id: UserId, *, lease: timedelta) -> ClaimedSync | None:
        """None if the account is not claimable."""

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
        """Store what was read if this attempt still holds the account; False changes nothing.

        The subscriptions replace the stored ones. Due again as `next_sync` says.
        """

    @abstractmethod
    async def retry(self, account: BillingAccount, *, delay: timedelta) -> None:
        """Record a failure if this attempt still holds the account. Due again as `next_try` says."""

    @abstractmethod
    async def make_due(self, user_id: UserId | None = None) -> int:
        """Make this account due now, or all of them; returns how many."""

    @abstractmethod
    async def take_due(self, *, limit: int, notified_before: timedelta) -> list[UserId]:
        """Claimable accounts that no worker was notified of for `notified_before`, the longest due first.

        They count as notified from now on. Concurrent callers get different ones.
        """


class BillingAccounts(Customers, Checkouts, Subscriptions, PaymentEvents, SyncJobs, Protocol):
    """All that is stored of users' dealings with Stripe, as one store implements it."""
