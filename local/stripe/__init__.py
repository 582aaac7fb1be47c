"""Stripe's stand-in: a small server that speaks the part of Stripe's REST API that the product uses.

People can subscribe without a Stripe account, through the adapter that production uses: a Checkout page and a customer
portal that work with Stripe's test cards, signed webhooks, and a clock that can be moved forward so that renewals fall
due. No money moves. It also serves a few calls that stand for work in Stripe's dashboard: see calls.py.

It is as unkind as Stripe: it checks keys and parameters, replays a call with the same Idempotency-Key and refuses the
key with other parameters, signs events, repeats those that are not accepted, and tries a failing card again for two
weeks before it cancels. On request it loses, delays, doubles and shuffles events and lets calls fail: see faults.py.

Its own calls take and return JSON. `:of` is the id of a payment intent, an invoice, a subscription or a checkout
session.

    GET    /control/                        the clock, the options, the number of objects
    POST   /control/reset                   a new account; the webhook's address stays
    PUT    /control/delivery                {url, secret, delay, copies, lose: [types] or ["*"], shuffle: seed, window,
                                             concurrency, timeout, retry_first, retry_longest, retries}
    PUT    /control/billing                 {trial_days, dunning_end, settle_seconds, livemode}
    POST   /control/clock                   {months, days, hours, seconds} or {to}: carries out what is due by then
    GET    /control/events                  with deliveries; ?type ?state ?object ?customer
    POST   /control/events                  {type, object: id or JSON, set, event, thin}: sends an event that you make
                                             up; a thin one has no data
    POST   /control/events/idle             {seconds}: waits until no delivery is under way
    POST   /control/checkout/:id/pay        {card, email, name}; payments.py has the cards
    POST   /control/payments/:of/settle     {succeed}: ends a bank debit
    POST   /control/customers/:id/card      {card}: pays for what comes next
    POST   /control/invoices/:id/pay        tries again
    POST   /control/refunds                 {of, amount}
    POST   /control/disputes                {of}
    POST   /control/disputes/:id/close      {won}
    GET    /control/objects/:id             with the private fields of the stand-in; their names begin with _
    PATCH  /control/objects/:id             {set: {…}, emit: a type or nothing}
    POST   /control/faults                  {kind, times, path, method, when, seconds, headers}
    DELETE /control/faults
    GET    /control/requests                ?limit: the number of calls by path, and the last ones
    DELETE /control/requests
"""
