"""Google's implicit cache: a prompt's beginning that an earlier prompt shared costs a tenth."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b

from local.gemini.question import CHARACTERS_PER_TOKEN

BLOCK_TOKENS = 256
_BLOCK = BLOCK_TOKENS * CHARACTERS_PER_TOKEN


class PromptCache:
    """Stores the hash of each block of a beginning, so that a look-up costs no more than the prompt's length.

    Holds at most `entries` blocks, for `seconds` since each was last seen.
    """

    def __init__(
        self, *, seconds: float = 300, entries: int = 50_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._entries, self._clock = seconds, entries, clock
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    def cached_tokens(self, model: str, prompt: str, least_tokens: int) -> int:
        """The tokens that this prompt's beginning shares with an earlier one. The prompt is stored."""
        blocks = self._blocks(model, prompt)[least_tokens // BLOCK_TOKENS - 1 :]
        now, hit = self._clock(), 0
        for index, block in enumerate(blocks):
            if self._seen.get(block, 0.0) > now:
                hit = index + 1
            self._seen[block] = now + self._seconds
            self._seen.move_to_end(block)
        while len(self._seen) > self._entries:
            self._seen.popitem(last=False)
        return least_tokens + (hit - 1) * BLOCK_TOKENS if hit else 0

    def clear(self) -> None:
        self._seen.clear()

    @staticmethod
    def _blocks(model: str, prompt: str) -> list[bytes]:
        beginning, blocks = blake2b(model.encode(), digest_size=16), []
        for at in range(0, len(prompt) - _BLOCK + 1, _BLOCK):
            beginning.update(prompt[at : at + _BLOCK].encode())
            blocks.append(beginning.digest())
        return blocks
