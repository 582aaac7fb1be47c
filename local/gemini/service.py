"""A call from its request to its reply."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from sanic import HTTPResponse, Request

from local.gemini.caching import PromptCache
from local.gemini.directives import Directive, Manner, Pace
from local.gemini.faults import Faults, Rule
from local.gemini.google import ERRORS, GoogleError, check_key
from local.gemini.models import Model, model_named
from local.gemini.question import Question
from local.gemini.sold import Call, Calls
from local.gemini.thinking import thinking_of
from local.gemini.wire import MID_STREAM, Stream, error_response
from local.gemini.writing import Reply, compose
from local.standin import Dropped, drop, json_response


@dataclass
class StandIn:
    pace: Pace = field(default_factory=Pace)
    #: Directives for every prompt; its own override them.
    directives: tuple[Directive, ...] = ()
    calls: Calls = field(default_factory=Calls)
    faults: Faults = field(default_factory=Faults)
    cache: PromptCache = field(default_factory=PromptCache)

    async def generate(self, request: Request, name: str, *, streamed: bool) -> HTTPResponse | None:
        question = Question.read(request.body)
        with self.calls.record(name, question, request.body) as call:
            try:
                return await self._answer(request, question, call, streamed=streamed)
            except Dropped:
                begun = streamed and call.status == 200
                call.outcome = "failed"
                return None if begun else HTTPResponse()  # never sent
            except GoogleError as error:
                call.status = error.code
                raise

    async def _answer(self, request: Request, question: Question, call: Call, *, streamed: bool) -> HTTPResponse | None:
        check_key(request.headers.get("x-goog-api-key") or request.args.get("key"))
        model = model_named(call.model)
        thinking = thinking_of(model, question.thinking)
        rule = self.faults.take(question, self.directives)
        call.fault = rule.kind or None
        if rule.kind in ERRORS:
            call.outcome, call.status = "failed", ERRORS[rule.kind][0]
            return error_response(rule)
        if rule.kind == "hang":
            await asyncio.Event().wait()  # cancelled when the client leaves
        if rule.kind == "disconnect":
            drop(request)
        if rule.kind == "latency":
            await asyncio.sleep(float(rule.get("seconds", 1)))
        manner = Manner.of(question.last_user_text, self.directives, self.pace)
        reply = compose(question, model, manner, thinking, rule, cached=self._cached(question, model))
        call.id, call.status = reply.id, 200
        if streamed:
            await Stream(request, call, rule).write(reply)
            return None
        return await self._whole(request, reply, rule, call)

    def _cached(self, question: Question, model: Model) -> int:
        least = model.cached_from_tokens
        return self.cache.cached_tokens(model.name, question.prompt, least) if question.tokens >= least else 0

    @staticmethod
    async def _whole(request: Request, reply: Reply, rule: Rule, call: Call) -> HTTPResponse:
        await asyncio.sleep(reply.seconds + (float(rule.get("seconds", 1)) if rule.kind == "silent" else 0))
        if rule.kind in MID_STREAM:
            drop(request)
        step = reply.whole()
        call.usage, call.finish = reply.usage(step), step.finish
        call.outcome, call.complete = "completed", True
        return json_response(reply.chunk(step, call.usage))
