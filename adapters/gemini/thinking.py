"""How much a model is asked to think, in the words it takes, without those that it has refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from adapters.gemini.request import ThinkingConfig
from domain.chat.calls import ThinkingLevel
from domain.chat.conversation import Conversation

logger = structlog.get_logger(__name__)

#: Models that take a budget in tokens instead of a level, by the beginning of their names.
#: Each budget is one that the family's flash, flash-lite and pro all take.
BUDGETS: Mapping[str, Mapping[ThinkingLevel, int]] = {
    "gemini-2.5-": {
        ThinkingLevel.MINIMAL: 512,
        ThinkingLevel.LOW: 1_024,
        ThinkingLevel.MEDIUM: 8_192,
        ThinkingLevel.HIGH: 24_576,
    },
}

#: The amount is left to the model, whose summaries are still a sign of life while it thinks.
_SUMMARIES = ThinkingConfig(include_thoughts=True)


class Thinking:
    """Models differ in what they take, and no list of them stays true: what one refuses is learned from it."""

    def __init__(self, model: str) -> None:
        self._model = model
        name = model.rpartition("/")[2]
        self._budgets = next((budgets for prefix, budgets in BUDGETS.items() if name.startswith(prefix)), None)
        #: What is sent for a level that was refused.
        self._instead: dict[ThinkingLevel, ThinkingConfig | None] = {}
        self._doubted: set[ThinkingLevel] = set()

    def config(self, conversation: Conversation) -> ThinkingConfig | None:
        level = conversation.thinking
        if level is None:
            return None
        if level in self._instead:
            return self._instead[level]
        if self._budgets is None:
            return ThinkingConfig(thinking_level=level.value, include_thoughts=True)
        # No more than there is room for: beyond it, thoughts would eat the reply.
        budget = min(self._budgets[level], conversation.thought_tokens or self._budgets[level])
        return ThinkingConfig(thinking_budget=budget, include_thoughts=True)

    @staticmethod
    def less(refused: ThinkingConfig, message: str) -> ThinkingConfig | None:
        """What to try after a refusal with this message, which need not have been about thinking."""
        says = message.lower()
        is_amount = "level" in says or "budget" in says
        return _SUMMARIES if is_amount and refused != _SUMMARIES else None

    def accepted(self, level: ThinkingLevel | None, config: ThinkingConfig | None, refusals: Sequence[str]) -> None:
        """That `config` was taken, after refusals with these messages, of what was sent for the level before it.

        A refusal that does not name its reason may have been Google's hiccup, so it has to come twice in a row.
        """
        if level is None:
            return
        if not refusals:
            self._doubted.discard(level)
            return
        is_named = any("think" in message.lower() for message in refusals)
        if not is_named and level not in self._doubted:
            self._doubted.add(level)
        elif level not in self._instead or self._instead[level] != config:
            self._instead[level] = config
            logger.warning("model_level_refused", model=self._model, level=level.value)
