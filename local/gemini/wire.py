"""Sends a reply over the connection, with the faults that break it there."""

from __future__ import annotations

import asyncio

from pydantic_core import to_json
from sanic import HTTPResponse, Request

from local.gemini.faults import Rule
from local.gemini.google import error_body
from local.gemini.sold import Call
from local.gemini.writing import Reply
from local.standin import Json, drop, json_response

#: Faults that follow some chunks of a normal reply.
MID_STREAM = ("cut", "hang_mid_stream", "error_in_stream", "broken_json")

_BROKEN = b'{"candidates": [{"content": {"parts": [{"text": }]}}]}'


class Stream:
    """A streamed response: server-sent events, or without `alt=sse` one JSON array sent piece by piece."""

    def __init__(self, request: Request, call: Call, rule: Rule) -> None:
        self._request, self._call, self._rule = request, call, rule
        self._events = request.args.get("alt") == "sse"
        self._frames = 0
        self._slice = int(rule.get("bytes", 1)) if rule.kind == "drip" else 0
        self._left = int(rule.get("bytes", 0)) if rule.kind == "cut" and "bytes" in rule.parameters else None

    async def write(self, reply: Reply) -> None:
        rule, steps = self._rule, reply.steps
        content_type = "text/event-stream" if self._events else "application/json; charset=UTF-8"
        response = await self._request.respond(content_type=content_type)
        assert response is not None
        self._response = response
        if rule.kind == "silent":
            await response.send("")  # the headers alone
            await asyncio.sleep(float(rule.get("seconds", 1)))
        ends_at = None
        if rule.kind in MID_STREAM and self._left is None:
            ends_at = min(int(rule.get("after", 1)), len(steps) - 1)
        for index, step in enumerate(steps):
            if index == ends_at:
                await self._break()
                return
            if step.delay:
                await asyncio.sleep(step.delay)
            usage = reply.usage(step)
            await self._frame(to_json(reply.chunk(step, usage)))
            self._call.usage, self._call.finish = usage, step.finish
        if seconds := float(rule.get("end_seconds", 0)):
            await asyncio.sleep(seconds)
        await self._end()
        self._call.outcome, self._call.complete = "completed", True

    async def _break(self) -> None:
        kind = self._rule.kind
        if kind == "cut":
            drop(self._request)
        if kind == "hang_mid_stream":
            await asyncio.Event().wait()  # cancelled when the client leaves
        self._call.outcome = "failed"
        if kind == "error_in_stream":
            await self._frame(to_json(error_of(self._rule, self._rule.get("error", "unavailable"))[1]))
        else:
            await self._frame(_BROKEN)
        await self._end()

    async def _frame(self, payload: bytes) -> None:
        before, after = (b"data: ", b"\r\n\r\n") if self._events else (b",\r\n" if self._frames else b"[", b"")
        frame = before + payload + after
        self._frames += 1
        if self._left is not None:
            if len(frame) >= self._left:
                await self._response.send(frame[: self._left])
                drop(self._request)
            self._left -= len(frame)
        for at in range(0, len(frame), self._slice or len(frame)):
            await self._response.send(frame[at : at + (self._slice or len(frame))])

    async def _end(self) -> None:
        if not self._events:
            await self._response.send(b"]")
        await self._response.eof()


def error_of(rule: Rule, kind: str) -> tuple[int, Json | list[Json]]:
    """`as_list` wraps it, as Google does on streams without `alt=sse`."""
    code, body = error_body(kind, message=str(rule.get("message", "")), retry_delay=rule.get("retry_delay", "53.016s"))
    return code, [body] if rule.get("as_list", False) else body


def error_response(rule: Rule) -> HTTPResponse:
    code, body = error_of(rule, rule.kind)
    wait = rule.get("retry_after", None)
    return json_response(body, code, {} if wait is None else {"Retry-After": str(wait)})
