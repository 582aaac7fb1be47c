"""For a deployment without payments: every call is refused."""

from __future__ import annotations

from datetime import datetime

from application.ports.billing import CheckoutState, PaymentEvent, PaymentGateway
from domain.billing import BillingAccount, Checkout, Subscription
from domain.errors import PaymentsUnavailable
from domain.ids import UserId


def _refuse() -> PaymentsUnavailable:
    return PaymentsUnavailable("Payments are not set up on this server.")


class NoPayments(PaymentGateway):
    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def read_event(self, body: bytes, signature: str | None, *, now: datetime) -> PaymentEvent | None:
        raise _refuse()

    async def create_customer(self, user_id: UserId, *, name: str, number: int) -> str:
        raise _refuse()

    async def open_checkout(self, account: BillingAccount, customer_id: str) -> Checkout:
        raise _refuse()

    async def open_portal(self, customer_id: str) -> str:
        raise _refuse()

    async def close_checkout(self, checkout_id: str) -> None:
        raise _refuse()

    async def delete_customer(self, customer_id: str) -> None:
        raise _refuse()

    async def checkout(self, checkout_id: str, user_id: UserId) -> CheckoutState | None:
        raise _refuse()

    async def subscriptions(self, customer_id: str, user_id: UserId) -> list[Subscription]:
        raise _refuse()
