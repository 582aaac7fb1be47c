"""Stripe's stand-in: a small server that speaks the REST API of Stripe as its own SDK and command line call it.

It lets people subscribe without an account, through the very adapter that production uses: a Checkout page and a
customer portal that can be clicked through with Stripe's test cards, signed webhooks, and a clock that can be moved
forward so that renewals come. No money moves.

Its own calls, JSON in and out (`:of` is the id of a charge, payment intent, invoice, subscription or checkout session):

    GET    /control/                        the clock, the settings, how many objects there are
    POST   /control/reset                   forgets all but the address of the webhook
    PUT    /control/delivery                {url, secret, delay, copies, lose: [types] or ["*"], hold, shuffle: seed,
                                             window, concurrency, timeout, retry_first, retry_longest, retries}
    PUT    /control/billing                 {decline_next, trial_days, dunning_end, settle_seconds, portal_cancels_by,
                                             livemode}
    POST   /control/clock                   {months, days, hours, seconds} or {to}: does what falls due until then
    GET    /control/events                  with deliveries; ?type ?state ?object ?customer
    POST   /control/events                  {type, object: id or JSON, set, previous, event}: an event of your own
    POST   /control/events/release          {order: first, last, shuffled or [ids or types], seed, types, copies}: sends
                                             what is held, one by one, and answers when all were answered
    POST   /control/events/idle             {seconds}: waits until no delivery is under way
    POST   /control/events/:id/send         {copies, signed_ago, secret}: sends it now, once more
    POST   /control/checkout/:id/pay        {card, email, name}; cards are named in money.py
    POST   /control/checkout/:id/expire
    POST   /control/payments/:of/settle     {succeed}: the end of a bank debit
    POST   /control/customers/:id/card      {card}
    POST   /control/subscriptions/:id       {price}
    POST   /control/invoices/:id/pay        tries again
    POST   /control/refunds                 {of, amount, reason}
    POST   /control/disputes                {of, reason, inquiry}
    POST   /control/disputes/:id/close      {won}
    GET    /control/objects/:id             with what is private to the stand-in (its names begin with _)
    PATCH  /control/objects/:id             {set: {…}, emit: type or none}
    POST   /control/faults                  {kind, times, path, method, when, seconds, headers}, see faults.py
    DELETE /control/faults
    GET    /control/requests                ?limit: counts per call, and the last ones with their parameters
    DELETE /control/requests
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from sanic import HTTPResponse, Request, Sanic
from sanic import json as json_response
from sanic.exceptions import SanicException

from local.stripe.control import control
from local.stripe.events import Delivery
from local.stripe.faults import StripeError, error_reply, invalid
from local.stripe.pages import pages, refusal
from local.stripe.standin import Reply, StandIn

logger = structlog.get_logger(__name__)


def create_app(stand_in: StandIn) -> Sanic[Any, Any]:
    # Sanic's own logging would greet and tell of each start; what is left says only what goes wrong.
    app: Sanic[Any, Any] = Sanic("stripe-stand-in", configure_logging=False)
    app.config.MOTD = False
    app.config.ACCESS_LOG = False
    app.config.FALLBACK_ERROR_FORMAT = "json"
    app.config.RESPONSE_TIMEOUT = 24 * 3600  # `hang` hangs
    app.config.KEEP_ALIVE_TIMEOUT = 75
    app.config.GRACEFUL_SHUTDOWN_TIMEOUT = 0.2
    app.blueprint(control(stand_in))
    app.blueprint(pages(stand_in))

    @app.route("/v1/<path:path>", methods=["GET", "POST", "DELETE"])
    async def rest(request: Request, path: str) -> HTTPResponse:
        body = request.body.decode(errors="replace")
        reply = await stand_in.call(request.method, request.path, request.query_string, body, request.headers)
        return _broken(request, reply) if reply.fault else _as_sent(reply)

    @app.get("/health")
    async def health(_: Request) -> HTTPResponse:
        return json_response({"status": "ok"})

    @app.exception(StripeError)
    async def as_stripe_says_it(request: Request, error: StripeError) -> HTTPResponse:
        told = request.path.startswith(("/v1/", "/control/"))
        return json_response(error.body, error.status) if told else refusal(error)

    @app.exception(SanicException)
    async def unknown(request: Request, error: SanicException) -> HTTPResponse:
        message = f"Unrecognized request URL ({request.method}: {request.path})."
        return json_response({"error": {"type": "invalid_request_error", "message": message}}, error.status_code)

    @app.exception(Exception)
    async def own_mistake(request: Request, error: Exception) -> HTTPResponse:
        if request.path.startswith("/control/") and isinstance(error, TypeError | ValueError | KeyError):
            return json_response(invalid(f"{type(error).__name__}: {error}").body, 400)
        logger.error("stripe_standin_failed", path=request.path, exc_info=error)
        return json_response(error_reply(500).body, 500)

    @app.before_server_start
    async def begin(app: Sanic[Any, Any]) -> None:
        stand_in.courier.resume()
        app.ctx.living = asyncio.create_task(stand_in.live())

    @app.after_server_stop
    async def end(app: Sanic[Any, Any]) -> None:
        app.ctx.living.cancel()
        with suppress(asyncio.CancelledError):
            await app.ctx.living
        stand_in.save()
        await stand_in.courier.close()

    return app


def _as_sent(reply: Reply) -> HTTPResponse:
    return HTTPResponse(reply.body, reply.status, reply.headers, content_type="application/json")


def _broken(request: Request, reply: Reply) -> HTTPResponse:
    assert reply.fault
    if reply.fault.kind == "broken_json":
        return HTTPResponse('{"id": "cus_', 200, reply.headers, content_type="application/json")
    if reply.fault.kind == "html":
        return HTTPResponse("<html><body>502 Bad Gateway</body></html>", 502, content_type="text/html")
    if request.transport:
        request.transport.close()
    return HTTPResponse()  # goes nowhere


def main() -> None:
    arguments = argparse.ArgumentParser(
        prog="python -m local.stripe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, required=True, help="0 takes a free one, named in the first line")
    arguments.add_argument(
        "--price", default="price_standin_pro", help="the id of the price that exists from the start"
    )
    arguments.add_argument("--webhook-url", default="", help="where events are sent")
    secret = os.environ.get("STRIPE_WEBHOOK_SECRET") or "whsec_standin"
    arguments.add_argument("--webhook-secret", default=secret, help="what they are signed with (STRIPE_WEBHOOK_SECRET)")
    arguments.add_argument(
        "--public-url", default="", help="how a browser reaches this server, if not by host and port"
    )
    arguments.add_argument("--state", type=Path, help="a JSON file in which the account is kept")
    given = arguments.parse_args()

    # Listening before the line is printed: whoever reads it may call at once.
    listener = socket.create_server((given.host, given.port), backlog=4096)
    url = f"http://{given.host}:{listener.getsockname()[1]}"
    print(f"Stripe's stand-in listens on {url}", flush=True)  # noqa: T201
    delivery = Delivery(url=given.webhook_url, secret=given.webhook_secret)
    stand_in = StandIn.make(price=given.price, url=given.public_url or url, delivery=delivery, state=given.state)
    create_app(stand_in).run(sock=listener, single_process=True, backlog=4096)


if __name__ == "__main__":
    main()
