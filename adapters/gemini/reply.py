"""What both of Google's SDKs have in common: which ending of a call means what to the product."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from domain.chat import ReplyChunk, TokenUsage
from domain.errors import (
    ModelError,
    ModelQuotaExhausted,
    ModelRateLimited,
    ModelRefused,
    ModelUnavailable,
    ReplyBlocked,
    ReplyEmpty,
)

DEFAULT_BASE_URL = "https://generativelanguage.googleapis.com"

#: Seconds to wait for the end of a stream that has told its finish reason.
END_SECONDS = 2.0

_RETRYABLE = frozenset({408, 500, 502, 503, 504})

#: Finish reasons with which Google's filters stop a reply. RECITATION is among them: the text came
#: too close to a protected source, so Google withdraws it, and asking again ends the same way.
_BLOCKED = frozenset({
    "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR",
    "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
})  # fmt: skip

_SECONDS = re.compile(r"(\d+(?:\.\d+)?)s?")


def error_of(code: int, details: Iterable[Any] = (), headers: Mapping[str, str] | None = None) -> ModelError:
    """The domain's error for one of Google's, told by its HTTP code and its `google.rpc` details.

    The wait is the longest that was asked for, in the body's RetryInfo or a Retry-After header.
    Google's message stays here: it may quote the prompt or the key.
    """
    waits = [_seconds((headers or {}).get("Retry-After"))]
    daily = False
    for detail in details:
        if not isinstance(detail, Mapping):
            continue
        kind = str(detail.get("@type", ""))
        if kind.endswith("google.rpc.RetryInfo"):
            waits.append(_seconds(detail.get("retryDelay")))
        elif kind.endswith("google.rpc.QuotaFailure"):
            violations = detail.get("violations") or []
            daily = daily or any("PerDay" in str(violation.get("quotaId", "")) for violation in violations)
    retry_after = max((wait for wait in waits if wait is not None), default=None)
    if code == 429:
        return ModelQuotaExhausted() if daily else ModelRateLimited(retry_after=retry_after)
    if code in _RETRYABLE or not 400 <= code < 500:
        return ModelUnavailable(retry_after=retry_after)
    return ModelRefused()


def details_of(body: Any) -> list[Any]:
    """The details in a body of Google's errors, which a proxy on the way may have replaced by anything."""
    body = body[0] if isinstance(body, list) and body else body
    error = body.get("error", body) if isinstance(body, Mapping) else {}
    details = error.get("details") if isinstance(error, Mapping) else None
    return details if isinstance(details, list) else []


def _seconds(given: object) -> float | None:
    # The date form of Retry-After is not Google's; without a number our own back-off decides.
    found = _SECONDS.fullmatch(given.strip()) if isinstance(given, str) else None
    return float(found[1]) if found else None


class Reply:
    """Reads a stream's chunks and knows, at its end, what has become of the reply.

    The finish reason is kept for `end()`: some models repeat it on every chunk, so only the end of
    the stream tells that there is no more.
    """

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self._has_text = False
        self._usage: TokenUsage | None = None

    def read(
        self,
        *,
        text: str,
        finish_reason: str | None,
        block_reason: str | None,
        input_tokens: int | None,
        answer_tokens: int | None,
        thought_tokens: int | None,
    ) -> ReplyChunk:
        """Raises ReplyBlocked. Thoughts count as output: Google bills them so."""
        if block_reason:
            raise ReplyBlocked(block_reason)
        if finish_reason in _BLOCKED:
            raise ReplyBlocked(finish_reason)
        self.finish_reason = finish_reason or self.finish_reason
        self._has_text = self._has_text or bool(text)
        if input_tokens or answer_tokens or thought_tokens:
            known = self._usage or TokenUsage()
            output = (answer_tokens or 0) + (thought_tokens or 0)
            self._usage = TokenUsage(
                input=input_tokens or known.input,
                output=output or known.output,
                thoughts=thought_tokens or known.thoughts,
            )
        return ReplyChunk(text, usage=self._usage)

    def end(self) -> ReplyChunk:
        """The last chunk. Raises ModelUnavailable for a stream that was cut, and ReplyEmpty."""
        if self.finish_reason is None:
            raise ModelUnavailable
        if not self._has_text:
            raise ReplyEmpty(self.finish_reason)
        return ReplyChunk(finish_reason=self.finish_reason, usage=self._usage)
