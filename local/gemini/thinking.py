"""How much a model thinks about a prompt, and the summaries that it shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from local.gemini.google import GoogleError
from local.gemini.models import Model, accepted
from local.standin import Json

#: Minimum and maximum tokens of a level. Prompts vary as widely as this for one model at one level.
_LEVELS = {"MINIMAL": (0, 100), "LOW": (100, 1_500), "MEDIUM": (500, 5_000), "HIGH": (1_000, 15_000)}
_DYNAMIC = (200, 8_192)
_FIELDS = {"thinkingLevel", "thinkingBudget", "includeThoughts"}

#: One summary for about this many tokens, and the maximum number of summaries.
_TOKENS_A_SUMMARY = 700
_MOST_SUMMARIES = 12

_SUMMARIES = (
    "**Reading the question**\n\nFirst I look at what is asked, and at what was said before it.\n\n",
    "**Weighing the options**\n\nThere is more than one way to answer. I compare them and keep the clearer one.\n\n",
    "**Checking the details**\n\nNames, numbers and units have to fit together, so I go through them once more.\n\n",
    "**Planning the answer**\n\nThe short version goes first, then the reasons, then an example.\n\n",
    "**Looking for mistakes**\n\nI try the answer on an edge case. It holds, with one small correction.\n\n",
)


@dataclass(frozen=True, slots=True)
class Thinking:
    least: int
    most: int
    shown: bool

    def tokens(self, share: float) -> int:
        """The amount at `share` (0 to 1) of the range, on a logarithmic scale."""
        if not self.most:
            return 0
        return int((self.least + 1) * ((self.most + 1) / (self.least + 1)) ** share) - 1


def thinking_of(model: Model, config: Json | None) -> Thinking:
    """What this model does with this thinkingConfig, or without one. Raises GoogleError if it refuses the config."""
    if config is None:
        return Thinking(*_default(model), shown=False)
    for field in config:
        if field not in _FIELDS:
            message = f"Invalid JSON payload received. Unknown name \"{field}\" at 'generation_config.thinking_config'"
            raise GoogleError("bad_request", message)
    level, budget = accepted(model, config)
    shown = bool(config.get("includeThoughts"))
    if level is not None:
        return Thinking(*_LEVELS[level], shown)
    if budget is not None:
        return Thinking(budget // 8, budget, shown)
    return Thinking(*_default(model), shown)


def _default(model: Model) -> tuple[int, int]:
    if model.budgets is None or (model.version < (3, 0) and model.size == "flash-lite"):
        return 0, 0
    return _LEVELS["HIGH"] if model.levels else _DYNAMIC


def summaries(tokens: int) -> Iterator[str]:
    """Much shorter than the thoughts: the tokens counted are never those of the summaries."""
    for index in range(min(_MOST_SUMMARIES, -(-tokens // _TOKENS_A_SUMMARY))):
        yield _SUMMARIES[index % len(_SUMMARIES)]
