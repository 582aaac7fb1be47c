"""Directives: instructions in a prompt for its answer, such as `[[unavailable times=2]]`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache

from local.standin import Json

_DIRECTIVE = re.compile(r'\[\[\s*([a-z_]+)((?:\s+[a-z_]+=(?:"(?:[^"\\]|\\.)*"|[^\s"\]]+))*)\s*\]\]')
_PARAMETER = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"\]]+)')


@dataclass(frozen=True)
class Directive:
    kind: str
    parameters: Json


def in_text(text: str) -> tuple[Directive, ...]:
    return _parsed(text) if "[[" in text else ()


def without(text: str) -> str:
    return _DIRECTIVE.sub("", text) if "[[" in text else text


@lru_cache(maxsize=1_024)
def _parsed(text: str) -> tuple[Directive, ...]:
    return tuple(
        Directive(kind, {name: _value(value) for name, value in _PARAMETER.findall(parameters)})
        for kind, parameters in _DIRECTIVE.findall(text)
    )


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


@dataclass(frozen=True)
class Pace:
    """Seconds before the first chunk and between chunks, and the minimum number of chunks."""

    first_chunk_seconds: float = 0.25
    chunk_seconds: float = 0.06
    chunks: int = 9


@dataclass(frozen=True)
class Manner:
    """How a prompt is answered without a fault. `sample` None chooses one; "echo" quotes the prompt."""

    sample: str | None = None
    thoughts: int | None = None
    pace: Pace = field(default_factory=Pace)

    @classmethod
    def of(cls, text: str, defaults: Iterable[Directive], pace: Pace) -> Manner:
        """From the defaults, overridden by the prompt's directives."""
        manner = cls(pace=pace)
        for directive in (*defaults, *in_text(text)):
            if directive.kind == "echo":
                manner = replace(manner, sample="echo")
            elif directive.kind == "sample":
                name = directive.parameters.get("name")
                manner = replace(manner, sample=None if name is None else str(name))
            elif directive.kind == "thoughts":
                tokens = directive.parameters.get("tokens")
                manner = replace(manner, thoughts=tokens if isinstance(tokens, int) else None)
            elif directive.kind == "pace":
                manner = replace(manner, pace=changed(manner.pace, directive.parameters))
        return manner


def changed(pace: Pace, parameters: Json) -> Pace:
    """The pace with the values in `parameters`; other parameters are ignored."""
    return replace(pace, **{name: value for name, value in parameters.items() if name in vars(pace)})
