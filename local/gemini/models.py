"""The models, and the thinking configuration that each accepts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from local.gemini.google import GoogleError
from local.standin import Json

#: The models in the list; any other name that begins with `gemini-` is served too.
LISTED = ("gemini-flash-latest", "gemini-flash-lite-latest", "gemini-pro-latest")

_NAME = re.compile(r"gemini-(\d+)(?:\.(\d+))?-(pro|flash-lite|flash)")
_NEWEST = {"flash": (3, 6), "flash-lite": (3, 5), "pro": (3, 1)}
_ALL_LEVELS = ("MINIMAL", "LOW", "MEDIUM", "HIGH")

#: Budgets of the 2.5 family: minimum, maximum, and whether 0 switches thinking off.
_BUDGETS = {"flash": (1, 24_576, True), "flash-lite": (512, 24_576, True), "pro": (128, 32_768, False)}


@dataclass(frozen=True, slots=True)
class Model:
    """`levels` is empty for a model that accepts budgets only; a model that does not think has neither."""

    name: str
    version: tuple[int, int]
    size: str
    levels: tuple[str, ...]
    budgets: tuple[int, int, bool] | None

    @property
    def cached_from_tokens(self) -> int:
        """The shortest common beginning that Google caches by itself."""
        return 1_024 if self.version == (2, 5) and self.size == "flash" else 4_096

    def as_json(self) -> Json:
        return {
            "name": f"models/{self.name}",
            "displayName": f"Stand-in for {self.name}",
            "inputTokenLimit": 1_048_576,
            "outputTokenLimit": 65_536,
            "supportedGenerationMethods": ["generateContent", "streamGenerateContent"],
            "thinking": self.budgets is not None,
        }


@lru_cache(maxsize=256)
def model_named(name: str) -> Model:
    """Raises GoogleError for a name that does not begin with `gemini-`.

    The `-latest` names behave as 3.6-flash, 3.5-flash-lite and 3.1-pro, and so does a name without a version.
    """
    if not name.startswith("gemini-"):
        raise GoogleError(
            "not_found",
            f"models/{name} is not found for API version v1beta, or is not supported for generateContent. "
            "Call ListModels to see the list of available models and their supported methods.",
        )
    if found := _NAME.match(name):
        size, version = found[3], (int(found[1]), int(found[2] or 0))
    else:
        size = next((size for size in ("pro", "flash-lite") if size in name), "flash")
        version = _NEWEST[size]
    if version < (2, 5):
        return Model(name, version, size, (), None)
    if version < (3, 0):
        return Model(name, version, size, (), _BUDGETS[size])
    return Model(name, version, size, _levels(version, size), (1, 65_535, False))


def _levels(version: tuple[int, int], size: str) -> tuple[str, ...]:
    if size == "pro":
        return ("LOW", "HIGH") if version == (3, 0) else ("LOW", "MEDIUM", "HIGH")
    return _ALL_LEVELS[1:] if size == "flash" and version >= (3, 7) else _ALL_LEVELS


def accepted(model: Model, config: Json) -> tuple[str | None, int | None]:
    """The level or the budget that a thinkingConfig requests. Raises GoogleError for one that this model refuses."""
    level, budget = config.get("thinkingLevel"), config.get("thinkingBudget")
    if level is not None and budget is not None:
        raise _refused("You can only set only one of thinking budget and thinking level.")
    if model.budgets is None:
        raise _refused("Unable to submit request because thinking is not supported by this model.")
    if level is not None:
        level = str(level).upper().removeprefix("THINKING_LEVEL_")
        if level == "UNSPECIFIED":
            return None, None
        if level not in _ALL_LEVELS:
            raise _refused(f"Invalid value at 'generation_config.thinking_config.thinking_level', \"{level}\"")
        if not model.levels:
            raise _refused("Thinking level is not supported for this model.")
        if level not in model.levels:
            raise _refused(
                f"Thinking level {level} is not supported for this model. Please retry with other thinking level."
            )
        return level, None
    return None, None if budget is None else _budget(model.budgets, budget)


def _budget(allowed: tuple[int, int, bool], budget: object) -> int | None:
    least, most, can_be_off = allowed
    if not isinstance(budget, int) or isinstance(budget, bool):
        raise _refused("Invalid value at 'generation_config.thinking_config.thinking_budget' (TYPE_INT32)")
    if budget == -1:
        return None  # dynamic
    if budget == 0 and not can_be_off:
        raise _refused("Budget 0 is invalid. This model only works in thinking mode.")
    if budget != 0 and not least <= budget <= most:
        raise _refused(f"The thinking budget {budget} is invalid. Please choose a value between {least} and {most}.")
    return budget


def _refused(message: str) -> GoogleError:
    return GoogleError("bad_request", message)
