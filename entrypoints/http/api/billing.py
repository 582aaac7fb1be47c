"""/subscribe, /subscription and Stripe's webhook."""

from __future__ import annotations

from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.response import text

from application.accounts.sessions import Caller
from application.billing.subscriptions import GetSubscription, OpenPortal, UpgradeTier
from application.billing.webhooks import AcceptWebhookEvent
from application.ports.runtime import Clock
from domain.errors import (
    AlreadySubscribed,
    DatabaseUnavailable,
    NotSubscribed,
    PaymentsRefused,
    PaymentsUnavailable,
    WebhookInvalid,
)
from entrypoints.http.api.endpoints import Endpoints
from entrypoints.http.api.schemas.billing import Subscription, SubscriptionReply, UrlReply
from entrypoints.http.documents.openapi import problem_response
from entrypoints.http.server.headers import NO_STORE, request_id
from entrypoints.telemetry import REQUEST_ID

endpoints = Endpoints("Billing")

WEBHOOK = "/webhook/stripe"


@endpoints.post(
    "/subscribe/pro",
    limits=("billing",),
    idempotent=True,
    errors=(AlreadySubscribed, PaymentsUnavailable, PaymentsRefused),
)
async def subscribe_pro(upgrade_tier: UpgradeTier, caller: Caller) -> UrlReply:
    """Open a checkout for Pro.

    Open `url`, a Stripe page, in the user's browser. Only one checkout is open at a time; a repeated call returns the
    same one. The tier changes once Stripe reports the payment, shortly after the user returns.
    """
    checkout = await upgrade_tier(user=caller.user)
    return UrlReply(url=checkout.url or "")


@endpoints.get("/subscription/status")
async def get_subscription(get: GetSubscription, clock: Clock, caller: Caller) -> SubscriptionReply:
    """Get your tier and its subscription.

    A past-due subscription keeps Pro for seven days, a cancelled one until the end of the paid period.
    """
    subscription = await get(user=caller.user)
    tier = caller.user.tier(clock.now())
    return SubscriptionReply(message="Your subscription.", data=Subscription.of(tier, subscription))


@endpoints.post(
    "/subscription/portal",
    limits=("billing",),
    idempotent=True,
    errors=(NotSubscribed, PaymentsUnavailable, PaymentsRefused),
)
async def open_portal(open_page: OpenPortal, caller: Caller) -> UrlReply:
    """Open Stripe's customer portal.

    Open `url` in the user's browser, to change the card, see invoices or cancel.
    """
    return UrlReply(url=await open_page(user=caller.user))


def route_webhook(app: Sanic[Any, Any], accept: AcceptWebhookEvent, *, limit: int) -> None:
    """Not declared as an endpoint: the signature covers the raw bytes, and the body may be larger."""

    async def stripe_webhook(request: Request) -> HTTPResponse:
        identifier = request_id(request)
        before = REQUEST_ID.set(identifier)
        try:
            stream: Any = request.stream
            stream.request_max_size = limit
            await request.receive_body()  # type: ignore[no-untyped-call]
            signatures = request.headers.getall("stripe-signature", [])
            await accept(body=request.body, signature=signatures[0] if len(signatures) == 1 else None)
            return text("OK", headers={"x-request-id": identifier, **NO_STORE})
        finally:
            REQUEST_ID.reset(before)

    app.add_route(stripe_webhook, WEBHOOK, methods=["POST"], stream=True)


WEBHOOK_OPERATION: dict[str, Any] = {
    "operationId": "stripe_webhook",
    "tags": ["Billing"],
    "summary": "Receive an event from Stripe.",
    "description": "Only for Stripe. An event is processed once, even if it is delivered repeatedly; then the current"
    " state is read from Stripe. Stripe redelivers an event after an error.",
    "parameters": [
        {
            "name": "Stripe-Signature",
            "in": "header",
            "required": True,
            "description": "Signature of the raw body, at most five minutes old.",
            "schema": {"type": "string"},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object", "description": "A Stripe event."}}},
    },
    "responses": {
        "200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string", "const": "OK"}}}},
        "400": problem_response(WebhookInvalid),
        "503": problem_response(DatabaseUnavailable, PaymentsUnavailable),
    },
}
