"""The texts of the OpenAPI document that belong to no single call."""

from __future__ import annotations

from typing import Any

from entrypoints.http.steps import idempotent, preferred, refresh_cookie

DESCRIPTION = """
A message to the model is accepted at once and answered by a worker. You can poll for its reply, wait for it, or stream
it while it is generated.

**Authentication.** Calls that require a login take `Authorization: Bearer <token>`. The token comes from verify-otp or
login and is valid for `expiresIn` seconds; refresh returns the next one. Never put a token into a URL.

**Errors.** Every error is a problem (RFC 9457, `application/problem+json`) with a stable `code` for programs.
429 and 503 carry `Retry-After`. Besides the errors that a call lists, any request can fail with 400
`malformed_request`, 404 `route_not_found`, 405 `method_not_allowed`, 408 `request_timeout`, 413 `body_too_large`, 417
`expectation_failed`, 431 `headers_too_large`, 500 `internal_error` or 503 `timeout`.

**Idempotency.** A POST takes an `Idempotency-Key`: a request that is repeated with the same key takes effect once. A
refusal (4xx) is not stored, so a refused request can be retried with its key. Calls that return a secret, such as a
code or a token, refuse a key with 400 `idempotency_key_unsupported`.

**Format.** JSON with camelCase keys, ids as UUIDs, times in UTC. Fields may be added to replies: ignore those that you
do not know. Paths work with and without a trailing slash. Every response carries `X-Request-ID`.
"""
TAGS = {
    "Accounts": "Sign-up, login by one-time code (OTP) or password, sessions, and the profile.",
    "Chat": "Chatrooms, their messages, and the model's replies.",
    "Billing": "Basic is free and has a daily allowance of messages; Pro is a subscription through Stripe.",
    "Operations": "Calls for probes and operators.",
}
PATH_IDS = {
    "chatroom_id": "Id of a chatroom of the caller.",
    "message_id": "Id of a message in that chatroom.",
    "session_id": "Id of a session of the caller.",
}
HEADERS: dict[str, tuple[str, str]] = {
    "Retry-After": ("Seconds to wait before trying again.", "2"),
    "Idempotency-Replayed": ("`true`: a replay of the first reply to this key.", "true"),
    "Preference-Applied": ("The preference that was applied.", "wait=30"),
    "RateLimit": (
        "Calls left under each limit, and seconds until all of them are available again.",
        '"verify";r=29;t=10',
    ),
    "RateLimit-Policy": ("These limits: number of calls, and the window in seconds.", '"verify";q=30;w=300'),
}

IDEMPOTENCY_KEY = {
    "name": idempotent.HEADER,
    "in": "header",
    "required": False,
    "description": "A unique value of your choice for each operation. It makes retries safe: the reply to a request"
    " that took effect is stored for 24 hours and replayed.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "examples": ["7c5e1f0a-send-1"]},
}
PREFER = {
    "name": preferred.PREFER,
    "in": "header",
    "required": False,
    "description": "`wait=N`: respond with 200 as soon as the message has ended, or with 202 after N seconds (maximum"
    f" {preferred.MAX_WAIT_SECONDS}).",
    "schema": {"type": "string", "examples": ["wait=30"]},
}
LAST_EVENT_ID: dict[str, Any] = {
    "required": False,
    "description": "Id of the last event received; the stream resumes after it.",
    "schema": {"type": "string", "examples": ["1-7"]},
}
REFRESH_COOKIE = {
    "name": refresh_cookie.HEADER,
    "in": "header",
    "required": False,
    "description": "For browser pages, which should not hold a refresh token. With `cookie` the token is set as an"
    " HttpOnly cookie instead of being returned in the body; refresh without a body reads it from there, and logout"
    " removes it.",
    "schema": {"type": "string", "examples": [refresh_cookie.VALUE]},  # any other value is ignored
}
EVENTS = {
    # Without a type: some tools take the schema for the body's, others for each event's.
    "schema": {"description": "Server-Sent Events as described in `stream_message`."},
    "example": 'event: thought\ndata: {"text":"It asks about light."}\n\nid: 1-8\nevent: delta\n'
    'data: {"text":"Because "}\n\nid: 1-26\nevent: delta\n'
    'data: {"text":"air scatters blue."}\n\nid: 1-27\nevent: done\ndata: {"id":"…","status":"completed", …}\n\n',
}
