"""Faults: what goes wrong, set by a control call or by a directive in the prompt."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from typing import Any

from local.gemini.directives import Directive, in_text
from local.gemini.google import ERRORS, GoogleError
from local.gemini.question import Question
from local.standin import Json, Limited, take

#: The kinds besides ERRORS. The package's docstring describes each and its parameters.
KINDS = frozenset(ERRORS) | {
    "latency", "silent", "hang", "disconnect", "hang_mid_stream", "cut", "error_in_stream", "broken_json", "drip",
    "huge_chunk", "think", "blocked", "blocked_mid_stream", "no_candidates", "empty", "blank", "max_tokens", "reply",
}  # fmt: skip

_ON = ("any", "message", "title")


@dataclass
class Rule(Limited):
    """`until` is a time of the monotonic clock."""

    kind: str = ""
    until: float | None = None
    match: str | None = None
    on: str = "any"
    parameters: Json = field(default_factory=dict)

    @classmethod
    def read(cls, values: Mapping[str, Any], now: float, *, times: int | None, on: str) -> Rule:
        """Raises ValueError for an unknown kind."""
        parameters = dict(values)
        kind, times, match = parameters.pop("kind", None), parameters.pop("times", times), parameters.pop("match", None)
        seconds, on = parameters.pop("for_seconds", None), parameters.pop("on", on)
        if kind not in KINDS or parameters.get("error", "unavailable") not in ERRORS or on not in _ON:
            raise ValueError(f"No such fault. There are: {', '.join(sorted(KINDS))}.")
        if seconds is not None and "times" not in values:
            times = None
        until = None if seconds is None else now + float(seconds)
        return cls(times, kind, until, match, on, parameters)

    def get(self, name: str, default: Any) -> Any:
        return self.parameters.get(name, default)

    def fits(self, question: Question, now: float) -> bool:
        if self.until is not None and self.until <= now:
            return False
        if self.on != "any" and (self.on == "title") != question.asks_for_title:
            return False
        return self.match is None or self.match in question.last_user_text


@dataclass
class Faults:
    """Rules in the order added; the first that fits a call is used, as often as its `times` allow.

    A prompt's directives come after them. Their `times` are counted per text of the prompt.
    """

    KEPT_PROMPTS = 10_000

    rules: list[Rule] = field(default_factory=list)
    clock: Callable[[], float] = time.monotonic
    _of_prompts: OrderedDict[bytes, list[Rule]] = field(default_factory=OrderedDict)

    def add(self, values: Mapping[str, Any]) -> None:
        """Raises ValueError for an unknown kind."""
        self.rules.append(Rule.read(values, self.clock(), times=1, on="any"))

    def clear(self) -> None:
        self.rules.clear()
        self._of_prompts.clear()

    def take(self, question: Question, defaults: Iterable[Directive] = ()) -> Rule:
        """The rule for this call; one without a kind if nothing is to go wrong."""
        now = self.clock()
        self.rules = [rule for rule in self.rules if rule.times != 0 and (rule.until is None or rule.until > now)]
        rules = chain(self.rules, self._of_prompt(question, defaults, now))
        return take(rules, lambda rule: rule.fits(question, now)) or Rule()

    def _of_prompt(self, question: Question, defaults: Iterable[Directive], now: float) -> list[Rule]:
        directives = (*in_text(question.last_user_text), *defaults)
        faults = [directive for directive in directives if directive.kind in KINDS]
        if not faults:
            return []
        key = blake2b(question.last_user_text.encode(), digest_size=16).digest()
        if key not in self._of_prompts:
            self._of_prompts[key] = [_rule_of(directive, now) for directive in faults]
            while len(self._of_prompts) > self.KEPT_PROMPTS:
                self._of_prompts.popitem(last=False)
        return self._of_prompts[key]


def _rule_of(directive: Directive, now: float) -> Rule:
    # A title's prompt quotes the message, so a directive in it is meant for the message only.
    try:
        return Rule.read({"kind": directive.kind, **directive.parameters}, now, times=None, on="message")
    except (TypeError, ValueError) as error:
        raise GoogleError("bad_request", str(error)) from None
