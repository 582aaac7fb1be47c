"""What Stripe may tell us: what is believed to be from it, and whom it is about."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from stripe import WebhookSignature

from adapters.stripe.gateway import CheckoutPage, StripeGateway
from application.ports.billing import PaymentEvent
from domain.errors import WebhookInvalid
from domain.ids import UserId

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
OLD, NEW = "whsec_the_old_one", "whsec_the_new_one"
USER = UserId(UUID("01890a5d-ac96-774b-bcce-b302099a8057"))
OTHER = UserId(UUID("01890a5d-ac96-774b-bcce-b302099a8058"))


def gateway(*secrets: str, key: str = "sk_test_1") -> StripeGateway:
    page = CheckoutPage(
        price="price_pro", prices=frozenset({"price_pro"}), success_url="", cancel_url="", portal_return_url=""
    )
    return StripeGateway(key=key, webhook_secrets=secrets or (OLD, NEW), page=page, api_base="", seconds=1)


def event(kind: str = "customer.subscription.updated", /, **payload: Any) -> dict[str, Any]:
    """As Stripe sends it."""
    return {
        "id": "evt_1Q0PsIJvEtkwdCNYMSaVuRz6",
        "object": "event",
        "api_version": "2026-10-28.basil",
        "created": int(NOW.timestamp()),
        "data": {"object": {"id": "sub_1", "object": "subscription", "customer": "cus_1", **payload}},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": kind,
    }


BODY = json.dumps(event(name="Añjali 🙂"), ensure_ascii=False).encode()


def v1(body: bytes = BODY, *, at: float | str = 0, secret: str = NEW) -> str:
    """The signature alone; `at` is in seconds from now, or the text itself."""
    time = str(int(NOW.timestamp() + at)) if isinstance(at, (int, float)) else at
    return hmac.new(secret.encode(), time.encode() + b"." + body, hashlib.sha256).hexdigest()


def signed(body: bytes = BODY, *, at: float = 0, secret: str = NEW) -> str:
    return f"t={int(NOW.timestamp() + at)},v1={v1(body, at=at, secret=secret)}"


def read(
    body: bytes, signature: str | None, *, of: StripeGateway | None = None, now: datetime = NOW
) -> PaymentEvent | None:
    return (of or gateway()).read_event(body, signature, now=now)


T = f"t={int(NOW.timestamp())}"
OLD_T = f"t={int(NOW.timestamp() - 301)}"
PLUS_T = f"t=+{int(NOW.timestamp() - 301)}"

GOOD: dict[str, tuple[bytes, str]] = {
    "just signed": (BODY, signed()),
    "299 s ago": (BODY, signed(at=-299)),
    "300 s ago": (BODY, signed(at=-300)),
    "299 s ahead": (BODY, signed(at=299)),
    "with the old secret while both are set": (BODY, signed(secret=OLD)),
    "with the new secret while both are set": (BODY, signed(secret=NEW)),
    "two v1, the second right": (BODY, f"{T},v1={'0' * 64},v1={v1()}"),
    "two v1, the first right": (BODY, f"{T},v1={v1()},v1={'0' * 64}"),
    "both secrets' v1": (BODY, f"{T},v1={v1(secret=OLD)},v1={v1(secret=NEW)}"),
    "v1 and v0": (BODY, f"{T},v1={v1()},v0={'0' * 64}"),
    "the time last": (BODY, f"v1={v1()},{T}"),
}
BAD: dict[str, tuple[bytes, str | None]] = {
    "301 s ago": (BODY, signed(at=-301)),
    "301 s ahead": (BODY, signed(at=301)),
    "years ahead": (BODY, signed(at=10**8)),
    "altered body": (BODY + b" ", signed()),
    "one altered byte": (BODY.replace(b"cus_1", b"cus_2"), signed()),
    "altered time": (BODY, f"t={int(NOW.timestamp()) - 1},v1={v1()}"),
    "a wrong secret": (BODY, signed(secret="whsec_anothers")),
    "an empty secret": (BODY, signed(secret="")),
    "no header": (BODY, None),
    "an empty header": (BODY, ""),
    "garbage": (BODY, "garbage"),
    "more garbage": (BODY, ",,==;t;v1,=,t=="),
    "no time": (BODY, f"v1={v1()}"),
    "no number for a time": (BODY, f"t=now,v1={v1(at='now')}"),
    "a time of 5,000 digits": (BODY, f"t={'9' * 5_000},v1={v1()}"),
    "a negative time": (BODY, f"t=-1,v1={v1(at='-1')}"),
    "digits of another script": (BODY, f"t=١٢٣,v1={v1(at='123')}"),
    "no signature": (BODY, T),
    "an empty signature": (BODY, f"{T},v1="),
    "v0 only": (BODY, f"{T},v0={v1()}"),
    "two v1, both wrong": (BODY, f"{T},v1={'0' * 64},v1={'f' * 64}"),
    "half a signature": (BODY, f"{T},v1={v1()[:32]}"),
    "in capitals": (BODY, f"{T},v1={v1().upper()}"),
    "a header that is not ASCII": (BODY, f"{T},v1=é{v1()[1:]}"),
    "signed long ago, dated again before": (BODY, f"{T},{OLD_T},v1={v1(at=-301)}"),
    "signed long ago, dated again behind": (BODY, f"{OLD_T},{T},v1={v1(at=-301)}"),
    "signed long ago, in a spelling that only the library reads": (BODY, f"{PLUS_T},{T},v1={v1(at=-301)}"),
    "signed for an empty body": (BODY, signed(b"")),
}


@pytest.mark.parametrize(("body", "signature"), GOOD.values(), ids=GOOD.keys())
def test_what_stripe_signed_is_believed(body: bytes, signature: str) -> None:
    assert read(body, signature) == PaymentEvent(id="evt_1Q0PsIJvEtkwdCNYMSaVuRz6", customer_id="cus_1")


@pytest.mark.parametrize(("body", "signature"), BAD.values(), ids=BAD.keys())
def test_what_it_did_not_sign_lately_is_not(body: bytes, signature: str | None) -> None:
    with pytest.raises(WebhookInvalid):
        read(body, signature)


def test_signs_as_stripes_own_library_does() -> None:
    given = WebhookSignature.generate_signature_header(BODY.decode(), NEW, int(NOW.timestamp()))
    assert given == signed()


@pytest.mark.parametrize("now", [NOW + timedelta(seconds=301), NOW - timedelta(seconds=301)])
def test_the_time_is_ours_and_not_that_of_the_machine(now: datetime) -> None:
    with pytest.raises(WebhookInvalid):
        read(BODY, signed(), now=now)


def test_a_secret_that_is_set_no_more_opens_nothing() -> None:
    with pytest.raises(WebhookInvalid):
        read(BODY, signed(secret=OLD), of=gateway(NEW))
    assert read(BODY, signed(secret=NEW), of=gateway(NEW))


WITHOUT = {
    f"no {name}": json.dumps({key: value for key, value in event().items() if key != name}).encode()
    for name in ("id", "type", "data", "livemode")
}
NO_EVENT: dict[str, bytes] = {
    "empty": b"",
    "broken JSON": b'{"id": "evt_1", "type": ',
    "a form": b"id=evt_1&type=invoice.paid",
    "a list": b"[]",
    "a text": b'"evt_1"',
    "a number": b"1",
    "null": b"null",
    "no UTF-8": b'{"id": "\xff\xfe"}',
    "UTF-16": json.dumps(event()).encode("utf-16"),
    "arrays 100,000 deep": b'{"id": ' + b"[" * 100_000,
    "a number of 10,000 digits": b'{"id": ' + b"9" * 10_000 + b"}",
    "an id that is a number": json.dumps({**event(), "id": 10**300}).encode(),
    "an empty id": json.dumps({**event(), "id": ""}).encode(),
    "an id of 256 characters": json.dumps({**event(), "id": "e" * 256}).encode(),
    "NUL in the id": json.dumps({**event(), "id": "evt_\0"}).encode(),
    "half a character in the id": json.dumps({**event(), "id": "evt_\ud800"}).encode(),
    "a type that is a list": json.dumps({**event(), "type": []}).encode(),
    "data that is a list": json.dumps({**event(), "data": []}).encode(),
    "data without an object": json.dumps({**event(), "data": {}}).encode(),
    "an object that is a text": json.dumps({**event(), "data": {"object": "sub_1"}}).encode(),
    **WITHOUT,
}


@pytest.mark.parametrize("body", NO_EVENT.values(), ids=NO_EVENT.keys())
def test_what_is_signed_and_still_no_event(body: bytes) -> None:
    with pytest.raises(WebhookInvalid):
        read(body, signed(body))


def read_signed(kind: str, /, *, live: bool = False, key: str = "sk_test_1", **about: Any) -> PaymentEvent | None:
    body = json.dumps({**event(kind, **about), "livemode": live}).encode()
    return read(body, signed(body), of=gateway(key=key))


@pytest.mark.parametrize("key", ["sk_test_1", "rk_test_1", "sk_live_1", "rk_live_1"])
def test_of_the_other_mode_it_is_none(key: str) -> None:
    live = "_live_" in key
    assert read_signed("invoice.paid", live=live, key=key)
    assert read_signed("invoice.paid", live=not live, key=key) is None


@pytest.mark.parametrize(
    "kind",
    [
        "ping",
        "",
        "price.updated",
        "customer.created",
        "customer.updated",
        "customer.subscriptions",
        "invoice.created",
        "invoice.finalized",
        "payment_intent.succeeded",
        "charge.succeeded",
        "checkout.session",
        "a.type.of.next.year",
    ],
)
def test_of_no_interest_it_is_none(kind: str) -> None:
    assert read_signed(kind) is None


SESSION = {
    "id": "cs_test_a1b2",
    "object": "checkout.session",
    "client_reference_id": str(USER),
    "customer": "cus_1",
    "invoice": None,
    "metadata": {"user_id": str(USER)},
    "mode": "subscription",
    "payment_intent": None,
    "payment_status": "paid",
    "status": "complete",
    "subscription": "sub_1",
}
ONE_OFF = {**SESSION, "mode": "payment", "payment_intent": "pi_1", "subscription": None, "customer": None}
SUBSCRIPTION = {"id": "sub_1", "object": "subscription", "customer": "cus_1", "metadata": {"user_id": str(USER)}}
INVOICE = {
    "id": "in_1",
    "object": "invoice",
    "customer": "cus_1",
    "parent": {"subscription_details": {"subscription": "sub_1"}},
    "metadata": {},
}
CHARGE = {"id": "ch_1", "object": "charge", "customer": None, "payment_intent": "pi_1", "refunded": True}
DISPUTE = {"id": "du_1", "object": "dispute", "charge": "ch_1", "payment_intent": "pi_1", "status": "lost"}
CUSTOMER = {"id": "cus_1", "object": "customer", "metadata": {"user_id": str(USER)}, "customer": None}

ABOUT_CHECKOUT = {"customer_id": "cus_1", "checkout_id": "cs_test_a1b2", "user_id": USER}
ABOUT_ONE_OFF = {"payment_intent_id": "pi_1", "checkout_id": "cs_test_a1b2", "user_id": USER}
CUSTOMERS = {"customer_id": "cus_1"}
PAYMENTS = {"payment_intent_id": "pi_1"}


@pytest.mark.parametrize(
    ("kind", "sent", "about"),
    [
        ("checkout.session.completed", SESSION, ABOUT_CHECKOUT),
        ("checkout.session.completed", ONE_OFF, ABOUT_ONE_OFF),
        ("checkout.session.async_payment_succeeded", ONE_OFF, ABOUT_ONE_OFF),
        ("checkout.session.async_payment_failed", SESSION, ABOUT_CHECKOUT),
        ("checkout.session.expired", SESSION, ABOUT_CHECKOUT),
        ("customer.subscription.created", SUBSCRIPTION, CUSTOMERS),
        ("customer.subscription.updated", SUBSCRIPTION, CUSTOMERS),
        ("customer.subscription.deleted", SUBSCRIPTION, CUSTOMERS),
        ("customer.subscription.paused", SUBSCRIPTION, CUSTOMERS),
        ("customer.subscription.resumed", SUBSCRIPTION, CUSTOMERS),
        ("customer.subscription.trial_will_end", SUBSCRIPTION, CUSTOMERS),
        ("customer.subscription.of_next_year", SUBSCRIPTION, CUSTOMERS),
        ("customer.deleted", CUSTOMER, CUSTOMERS),
        ("invoice.paid", INVOICE, CUSTOMERS),
        ("invoice.payment_failed", INVOICE, CUSTOMERS),
        ("charge.refunded", CHARGE, PAYMENTS),
        ("charge.refunded", {**CHARGE, "customer": "cus_1", "payment_intent": None}, CUSTOMERS),
        ("charge.dispute.created", DISPUTE, PAYMENTS),
        ("charge.dispute.closed", DISPUTE, PAYMENTS),
    ],
)
def test_whom_it_is_about(kind: str, sent: dict[str, Any], about: dict[str, Any]) -> None:
    body = json.dumps({**event(kind), "data": {"object": sent}}).encode()
    assert read(body, signed(body)) == PaymentEvent(id="evt_1Q0PsIJvEtkwdCNYMSaVuRz6", **about)


@pytest.mark.parametrize(
    ("reference", "metadata", "user_id"),
    [
        (str(USER), {}, USER),
        (str(USER), None, USER),
        (None, {"user_id": str(USER)}, USER),
        (None, {"userId": str(USER)}, USER),
        ("", {"userId": str(USER)}, USER),
        ("42", {"userId": str(USER)}, USER),
        (str(USER), {"user_id": str(OTHER)}, USER),
        (None, {"user_id": str(USER), "userId": str(OTHER)}, USER),
        (None, {}, None),
        (None, None, None),
        ("somebody", {"user_id": "somebody"}, None),
        (42, {"user_id": 42}, None),
        (None, {"user_id": None, "userId": []}, None),
        (["user_id"], ["user_id"], None),
        (None, "user_id", None),
        (None, {"id": str(USER)}, None),
    ],
)
def test_whom_a_checkout_names(reference: Any, metadata: Any, user_id: UserId | None) -> None:
    found = read_signed("checkout.session.completed", id="cs_1", client_reference_id=reference, metadata=metadata)
    assert found is not None
    assert (found.checkout_id, found.user_id) == ("cs_1", user_id)


def test_only_a_checkout_names_a_user() -> None:
    named: dict[str, Any] = {"client_reference_id": str(USER), "metadata": {"user_id": str(USER)}}
    for kind in ("customer.subscription.updated", "invoice.paid", "charge.refunded", "customer.deleted"):
        found = read_signed(kind, **named)
        assert found is not None
        assert found.user_id is None
        assert found.checkout_id is None


@pytest.mark.parametrize("wrong", [None, 7, "", "x" * 256, "cus_\n1", ["cus_1"], {"id": "cus_1"}, True, 1e400])
def test_an_id_that_cannot_be_one_is_none(wrong: Any) -> None:
    found = read_signed("checkout.session.completed", id=wrong, customer=wrong, payment_intent=wrong)
    assert found == PaymentEvent(id="evt_1Q0PsIJvEtkwdCNYMSaVuRz6")


def test_a_signed_thin_event_is_accepted_without_effect() -> None:
    """An event destination may be set to send them; Stripe must not take them for failed."""
    thin = {
        "id": "evt_test_65R9Ijk8dKEYZcXeRWn16R9A7j1FSQ3w3TGDPLLGSM4CW0",
        "object": "v2.core.event",
        "type": "v1.billing.meter.error_report_triggered",
        "livemode": False,
        "created": "2026-01-01T12:00:00.000Z",
        "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"},
    }
    body = json.dumps(thin).encode()
    assert gateway().read_event(body, signed(body), now=NOW) is None
    with pytest.raises(WebhookInvalid):
        gateway().read_event(body, signed(body, secret="whsec_another"), now=NOW)
