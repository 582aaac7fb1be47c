"""A reply in chunks: thoughts first, then text, with Google's cumulative counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from local.gemini.directives import Manner, Pace, changed
from local.gemini.faults import Rule
from local.gemini.models import Model
from local.gemini.question import CHARACTERS_PER_TOKEN, Question, tokens_of
from local.gemini.replies import answer
from local.gemini.thinking import Thinking, summaries
from local.standin import Json

#: For each of these tokens of thought the first chunk's delay is added once more, at most _MOST_WAITS times.
_TOKENS_A_WAIT = 500
_MOST_WAITS = 8

_TOKENS_A_SECOND = 100  # of the fault `think`
_HUGE_BYTES = 1_000_000
_CHARACTERS_A_CHUNK = 90
_SIGNATURE = "EtQBCtEBAb4+9vtzdGFuZC1pbi1mb3ItZ2VtaW5pLW5vdC1hLXJlYWwtc2lnbmF0dXJl"


@dataclass
class Step:
    """One chunk: its parts, and the tokens of thought and characters of text up to and including it."""

    delay: float
    parts: list[Json]
    thoughts: int
    characters: int
    finish: str | None = None


@dataclass
class Reply:
    model: Model
    prompt: int
    cached: int
    steps: list[Step] = field(default_factory=list)
    block_reason: str | None = None
    no_candidates: bool = False
    id: str = field(default_factory=lambda: uuid4().hex[:22])

    @property
    def seconds(self) -> float:
        return sum(step.delay for step in self.steps)

    def chunk(self, step: Step, usage: Json) -> Json:
        body: Json = {}
        if self.block_reason is not None:
            body["promptFeedback"] = {"blockReason": self.block_reason}
        elif not self.no_candidates:
            content: Json = {"parts": step.parts, "role": "model"} if step.parts else {"role": "model"}
            finish = {"finishReason": step.finish} if step.finish else {}
            body["candidates"] = [{"content": content, **finish, "index": 0}]
        return body | {"usageMetadata": usage, "modelVersion": self.model.name, "responseId": self.id}

    def usage(self, step: Step) -> Json:
        """Cumulative. Like Google, it leaves out zero counts."""
        candidates = -(-step.characters // CHARACTERS_PER_TOKEN)
        usage = {"promptTokenCount": self.prompt}
        if candidates:
            usage["candidatesTokenCount"] = candidates
        usage["totalTokenCount"] = self.prompt + candidates + step.thoughts
        if self.cached:
            usage["cachedContentTokenCount"] = self.cached
        if step.thoughts:
            usage["thoughtsTokenCount"] = step.thoughts
        return usage

    def whole(self) -> Step:
        """All steps in one: the reply to a call that does not stream."""
        last = self.steps[-1]
        parts: list[Json] = []
        for part in (part for step in self.steps for part in step.parts):
            if parts and "text" in part and parts[-1].get("thought") == part.get("thought"):
                parts[-1] = parts[-1] | part | {"text": parts[-1]["text"] + part["text"]}
            else:
                parts.append(part)
        return Step(self.seconds, parts, last.thoughts, last.characters, last.finish)


def compose(question: Question, model: Model, manner: Manner, thinking: Thinking, rule: Rule, *, cached: int) -> Reply:
    reply = Reply(model, question.tokens, min(cached, question.tokens))
    pace = changed(manner.pace, rule.parameters)
    if rule.kind in ("blocked", "no_candidates"):
        reply.no_candidates = rule.kind == "no_candidates"
        reply.block_reason = None if reply.no_candidates else rule.get("reason", "SAFETY")
        reply.steps = [Step(pace.first_chunk_seconds, [], 0, 0)]
        return reply
    pieces, finish = _pieces(question, manner, rule, pace)
    thoughts, for_text = _thoughts(question, model, manner, thinking, rule)
    if rule.kind == "max_tokens":
        for_text = min(rule.get("tokens", 0), for_text) if for_text is not None else rule.get("tokens", 0)
    if rule.kind != "huge_chunk" and for_text is not None and tokens_of("".join(pieces)) > for_text:
        cut = "".join(pieces)[: for_text * CHARACTERS_PER_TOKEN]
        pieces, finish = split(cut, len(pieces)) if cut else [], "MAX_TOKENS"
    steps = _thinking_steps(thoughts, thinking, rule, pace)
    _text_steps(steps, pieces, finish, pace, signed=bool(thoughts) and bool(model.levels) and finish == "STOP")
    reply.steps = steps
    return reply


def _pieces(question: Question, manner: Manner, rule: Rule, pace: Pace) -> tuple[list[str], str]:
    """The pieces of text and the finish reason, before limits apply."""
    finish = str(rule.get("finish_reason", "STOP"))
    if rule.kind == "empty":
        return [], str(rule.get("reason", finish))
    if rule.kind == "blank":
        return ["\n", "  \n"], finish
    text = rule.get("text", None)
    scripted = text is not None or manner.sample == "echo" or question.asks_for_title
    if text is None:
        text = answer(question, manner)
    if isinstance(rule.get("chunks", None), list):
        pieces: list[str] = list(rule.get("chunks", None))
    else:
        pieces = split(str(text), pace.chunks if scripted else max(pace.chunks, len(text) // _CHARACTERS_A_CHUNK))
    if rule.kind == "huge_chunk":
        word = "large "
        pieces.insert(1, word * (int(rule.get("bytes", _HUGE_BYTES)) // len(word)))
    if rule.kind == "blocked_mid_stream":
        return [*pieces[: int(rule.get("after", 1))], ""], str(rule.get("reason", "SAFETY"))
    return pieces, finish


def _thoughts(
    question: Question, model: Model, manner: Manner, thinking: Thinking, rule: Rule
) -> tuple[int, int | None]:
    """The tokens of thought, and those that the limit leaves for the text. Thoughts are charged first."""
    limit, (amount, rest) = question.limit, question.shares(model.name)
    requested = rule.get("thoughts", None)
    if requested is None and "thought" in rule.parameters:
        requested = tokens_of(rule.get("thought", ""))
    if requested is None and rule.kind == "think":
        requested = int(float(rule.get("seconds", 1)) * _TOKENS_A_SECOND)
    if requested is None and rule.kind == "empty" and rule.get("reason", "") == "MAX_TOKENS" and thinking.most:
        return limit or thinking.most, 0
    requested = manner.thoughts if requested is None else requested
    thoughts = thinking.tokens(amount) if requested is None else int(requested)
    if limit is None:
        return thoughts, None
    if thoughts < limit:
        return thoughts, limit - thoughts
    # The limit is used up: half of the prompts get no text at all, the others a little.
    words = limit // 25 if requested is None and rest < 0.5 else 0
    return limit - words, words


def _thinking_steps(thoughts: int, thinking: Thinking, rule: Rule, pace: Pace) -> list[Step]:
    """The steps of thought. The first one's delay is that of the reply; the steps of the text follow."""
    if rule.get("thought", ""):
        texts, seconds = [str(rule.get("thought", ""))], 0.0
    elif rule.kind == "think":
        seconds = float(rule.get("seconds", 1))
        count = max(1, round(seconds / float(rule.get("every", 3))))
        texts = [f"**Still thinking ({index + 1} of {count})**\n\n" for index in range(count)]
    else:
        texts = list(summaries(thoughts))
        seconds = pace.first_chunk_seconds * min(_MOST_WAITS, thoughts / _TOKENS_A_WAIT)
    if not (thinking.shown or rule.get("thought", "")):
        return [Step(pace.first_chunk_seconds + seconds, [], thoughts, 0)] if thoughts or seconds else []
    steps = [
        Step(seconds / len(texts), [{"text": text, "thought": True}], thoughts * (index + 1) // len(texts), 0)
        for index, text in enumerate(texts)
    ]
    if steps:
        steps[0].delay += pace.first_chunk_seconds
    return steps


def _text_steps(steps: list[Step], pieces: Sequence[str], finish: str, pace: Pace, *, signed: bool) -> None:
    """Append the text to the steps of thought. Hidden thoughts delay the first piece instead of being a chunk."""
    thoughts = steps[-1].thoughts if steps else 0
    delay = pace.chunk_seconds if steps else pace.first_chunk_seconds
    if steps and not steps[-1].parts:
        delay = steps.pop().delay
    characters = 0
    for piece in pieces or [""]:
        characters += len(piece)
        steps.append(Step(delay, [{"text": piece}] if piece else [], thoughts, characters))
        delay = pace.chunk_seconds
    if signed and characters:
        steps.append(Step(0.0, [{"text": "", "thoughtSignature": _SIGNATURE}], thoughts, characters))
    steps[-1].finish = finish


def split(text: str, count: int) -> list[str]:
    """About `count` pieces, cut between words."""
    words = text.split(" ")
    size = -(-len(words) // max(1, count))
    pieces = [" ".join(words[at : at + size]) for at in range(0, len(words), size)]
    return [*(piece + " " for piece in pieces[:-1]), pieces[-1]]
