"""How much thinking to request, in a form that the model accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from adapters.gemini.request import ThinkingConfig
from domain.chat.calls import ThinkingLevel
from domain.chat.conversation import Conversation

logger = structlog.get_logger(__name__)

#: Models that take a budget in tokens instead of a level, by the prefix of their names.
#: The flash, flash-lite and pro models of a family accept all of its budgets.
BUDGETS: Mapping[str, Mapping[ThinkingLevel, int]] = {
    "gemini-2.5-": {
        ThinkingLevel.MINIMAL: 512,
        ThinkingLevel.LOW: 1_024,
        ThinkingLevel.MEDIUM: 8_192,
        ThinkingLevel.HIGH: 24_576,
    },
}

#: The model decides the amount. Its summaries are still a sign of life while it thinks.
_SUMMARIES = ThinkingConfig(include_thoughts=True)


class Thinking:
    """Models differ in what they accept, and no list stays current, so refusals are remembered."""

    def __init__(self, model: str) -> None:
        self._model = model
        name = model.rpartition("/")[2]
        self._budgets = next((budgets for prefix, budgets in BUDGETS.items() if name.startswith(prefix)), None)
        #: What to send for a level that was refused.
        self._replacements: dict[ThinkingLevel, ThinkingConfig | None] = {}
        self._doubted: set[ThinkingLevel] = set()

    def config(self, conversation: Conversation) -> ThinkingConfig | None:
        level = conversation.thinking
        if level is None:
            return None
        if level in self._replacements:
            return self._replacements[level]
        if self._budgets is None:
            return ThinkingConfig(thinking_level=level.value, include_thoughts=True)
        # Limited by the tokens reserved for thoughts; more would be taken from the reply.
        budget = min(self._budgets[level], conversation.thought_tokens or self._budgets[level])
        return ThinkingConfig(thinking_budget=budget, include_thoughts=True)

    @staticmethod
    def less(refused: ThinkingConfig, message: str) -> ThinkingConfig | None:
        """What to try after a refusal with this message, which may have had another reason."""
        says = message.lower()
        is_amount = "level" in says or "budget" in says
        return _SUMMARIES if is_amount and refused != _SUMMARIES else None

    def accepted(self, level: ThinkingLevel | None, config: ThinkingConfig | None, refusals: Sequence[str]) -> None:
        """Remember that `config` was accepted for the level after refusals with these messages.

        A refusal that does not name thinking may be a transient error, so it has to occur twice in succession.
        """
        if level is None:
            return
        if not refusals:
            self._doubted.discard(level)
            return
        is_named = any("think" in message.lower() for message in refusals)
        if not is_named and level not in self._doubted:
            self._doubted.add(level)
        elif level not in self._replacements or self._replacements[level] != config:
            self._replacements[level] = config
            logger.warning("model_level_refused", model=self._model, level=level.value)
