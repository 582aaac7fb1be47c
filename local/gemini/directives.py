"""Directives: what a prompt itself says about how it is to be answered, such as `[[unavailable times=2]]`."""

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
    """How a reply is written: seconds before the first chunk and between others, and the least number of chunks."""

    first_chunk_seconds: float = 0.25
    chunk_seconds: float = 0.06
    chunks: int = 9


@dataclass(frozen=True)
class Manner:
    """How a prompt is answered when nothing goes wrong: `sample` None chooses one, "echo" quotes the prompt."""

    sample: str | None = None
    thoughts: int | None = None
    pace: Pace = field(default_factory=Pace)

    @classmethod
    def of(cls, text: str, defaults: Iterable[Directive], pace: Pace) -> Manner:
        """By the defaults, then by the prompt's own directives, which win."""
        manner = cls(pace=pace)
        for given in (*defaults, *in_text(text)):
            if given.kind == "echo":
                manner = replace(manner, sample="echo")
            elif given.kind == "sample":
                name = given.parameters.get("name")
                manner = replace(manner, sample=None if name is None else str(name))
            elif given.kind == "thoughts":
                tokens = given.parameters.get("tokens")
                manner = replace(manner, thoughts=tokens if isinstance(tokens, int) else None)
            elif given.kind == "pace":
                manner = replace(manner, pace=changed(manner.pace, given.parameters))
        return manner


def changed(pace: Pace, parameters: Json) -> Pace:
    """That pace with those of these parameters that are of it."""
    return replace(pace, **{name: value for name, value in parameters.items() if name in vars(pace)})
