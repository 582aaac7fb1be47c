"""The parts of a request's body that the stand-in uses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

from pydantic_core import from_json

from local.gemini.google import GoogleError
from local.standin import Json

CHARACTERS_PER_TOKEN = 4
_TOKENS_OF_A_PICTURE = 258
_LARGEST_BODY = 20 * 1024 * 1024

_FIELDS = frozenset({
    "model", "contents", "systemInstruction", "system_instruction", "generationConfig", "generation_config",
    "safetySettings", "safety_settings", "tools", "toolConfig", "tool_config", "cachedContent", "cached_content",
    "labels", "serviceTier", "service_tier", "store",
})  # fmt: skip
_CONFIG_FIELDS = frozenset({
    "candidateCount", "stopSequences", "maxOutputTokens", "temperature", "topP", "topK", "seed", "presencePenalty",
    "frequencyPenalty", "responseLogprobs", "logprobs", "responseMimeType", "responseSchema", "responseJsonSchema",
    "_responseJsonSchema", "responseModalities", "speechConfig", "thinkingConfig", "imageConfig", "mediaResolution",
    "enableEnhancedCivicAnswers", "enableAffectiveDialog", "routingConfig", "modelSelectionConfig",
})  # fmt: skip

#: Marks a system instruction that asks for a title.
_ASKS_FOR_TITLE = re.compile(
    r"nothing but (a|the) title|only (a|the) title|title of at most|name conversations", re.IGNORECASE
)


@dataclass(frozen=True)
class Question:
    contents: list[Json]
    system: str | None
    limit: int | None
    thinking: Json | None

    @classmethod
    def read(cls, body: bytes) -> Question:
        """Raises GoogleError for a body that Google refuses."""
        if len(body) > _LARGEST_BODY:
            raise GoogleError("bad_request", f"Request payload size exceeds the limit: {_LARGEST_BODY} bytes.")
        try:
            request = from_json(body)
            _known(request, _FIELDS, "")
            config = _camel(request.get("generationConfig") or request.get("generation_config") or {})
            _known(config, _CONFIG_FIELDS, " at 'generation_config'")
            limit, thinking = config.get("maxOutputTokens"), config.get("thinkingConfig")
            system = request.get("systemInstruction") or request.get("system_instruction")
            question = cls(
                request["contents"],
                _text(system) if system else None,
                None if limit is None else int(limit),
                None if thinking is None else _camel(thinking),
            )
            question._check()
        except (ValueError, TypeError, KeyError, AttributeError):
            raise GoogleError("bad_request", "Invalid JSON payload received.") from None
        return question

    def _check(self) -> None:
        if not self.contents or not all(content["parts"] for content in self.contents):
            raise GoogleError("bad_request", "* GenerateContentRequest.contents: contents is not specified\n")
        if any(content.get("role", "user") not in ("user", "model") for content in self.contents):
            raise GoogleError("bad_request", "Please use a valid role: user, model.")
        if self.limit is not None and self.limit < 1:
            raise GoogleError("bad_request", "max_output_tokens must be positive.")
        self.tokens  # noqa: B018 - refuses unreadable parts here, not later

    @cached_property
    def last_user_text(self) -> str:
        return next((_text(turn) for turn in reversed(self.contents) if _is_users(turn)), "")

    @cached_property
    def user_turns(self) -> int:
        """The number of the user's messages: the first is turn 1."""
        return sum(map(_is_users, self.contents))

    @cached_property
    def asks_for_title(self) -> bool:
        if self.system is not None and _ASKS_FOR_TITLE.search(self.system):
            return True
        return self.last_user_text.rstrip().endswith("Title:")

    @cached_property
    def tokens(self) -> int:
        return sum(map(_content_tokens, self.contents)) + tokens_of(self.system or "")

    @property
    def prompt(self) -> str:
        """The whole prompt as one string; prompts that begin alike give strings that begin alike."""
        turns = "\x1e".join(f"{turn.get('role', 'user')}\x1f{_text(turn, data=True)}" for turn in self.contents)
        return f"{self.system or ''}\x1e{turns}"

    def shares(self, model: str) -> tuple[float, float]:
        """Two pseudo-random numbers from 0 to 1, always the same for a prompt."""
        key = f"{model}\x1f{len(self.contents)}\x1f{self.last_user_text}".encode()
        digest = blake2b(key, digest_size=8).digest()
        return int.from_bytes(digest[:4]) / 2**32, int.from_bytes(digest[4:]) / 2**32


def text_of(content: Json) -> str:
    return _text(content)


def tokens_of(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _is_users(content: Json) -> bool:
    return bool(content.get("role", "user") == "user")


def _text(content: Json, *, data: bool = False) -> str:
    """Its text; `data` adds the attachments."""
    return "".join(part["text"] if "text" in part else _attached(part) if data else "" for part in content["parts"])


def _attached(part: Json) -> str:
    attached: Any = part.get("inlineData") or part.get("inline_data") or part.get("fileData") or part.get("file_data")
    if attached is None:
        raise GoogleError("bad_request", "* GenerateContentRequest.contents: data must have one initialized field\n")
    return str(attached.get("data") or attached["fileUri"])


def _content_tokens(content: Json) -> int:
    tokens = tokens_of(_text(content))
    return tokens + sum(_TOKENS_OF_A_PICTURE for part in content["parts"] if "text" not in part and _attached(part))


def _camel(fields: Json) -> Json:
    """Names in camel case. Like all Google APIs it also accepts the protocol buffers' snake case."""
    return {re.sub(r"(?<=\w)_(\w)", lambda found: found[1].upper(), name): value for name, value in fields.items()}


def _known(fields: Json, names: frozenset[str], where: str) -> None:
    for name in fields:
        if name not in names:
            message = f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.'
            raise GoogleError("bad_request", message)
