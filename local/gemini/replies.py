"""The text of a reply: a title, an echo of the prompt, or a sample of what models write."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from local.gemini.directives import Manner, without
from local.gemini.question import Question, text_of

_FOLDER = Path(__file__).parent / "samples"
_QUOTED_CHARACTERS = 400

#: The first replies of a room, in this order; later ones repeat the last four.
_BY_TURN = ("tour", "formulas", "tables", "code", "directions", "long")

#: Words in a prompt that choose a sample; the first match wins.
_BY_WORD = (
    ("arabic", re.compile(r"[\u0600-\u06ff]|\barabic\b", re.IGNORECASE)),
    ("hindi", re.compile(r"[\u0900-\u097f]|\bhindi\b", re.IGNORECASE)),
    ("tables", re.compile(r"\btables?\b", re.IGNORECASE)),
    ("formulas", re.compile(r"\b(formulas?|equations?|integrals?|math\w*|tex|latex)\b", re.IGNORECASE)),
    ("code", re.compile(r"\b(code|program\w*|functions?|scripts?)\b", re.IGNORECASE)),
    ("long", re.compile(r"\b(long|essay|in detail|at length)\b", re.IGNORECASE)),
    ("directions", re.compile(r"\b(mixed|directions?|right to left|hebrew)\b", re.IGNORECASE)),
)
_GO_ON = re.compile(r"\W*(please )?(continue|go on)\b", re.IGNORECASE)


def answer(question: Question, manner: Manner) -> str:
    text = without(question.last_user_text)
    if question.asks_for_title:
        return _title(text)
    if manner.sample == "echo":
        return _echo(text, question.user_turns)
    return _rest(question, manner) or _sample(text, question.user_turns, manner.sample)


def _title(text: str) -> str:
    """A name for a chatroom: the first words of the message."""
    asked = " ".join(text.split()).removesuffix("Title:").removeprefix("User:").partition("Assistant:")[0]
    return " ".join(asked.split()[:6]) or "A conversation"


def _echo(text: str, turn: int) -> str:
    seen = "the first turn of our conversation" if turn == 1 else f"turn {turn} of our conversation"
    return (
        "Hello! I am the local stand-in for Gemini, not the model itself. "
        f"You wrote: “{_quoted(text)}” — good of you to ask. This is {seen}. "
        "To talk with the real Gemini, set GEMINI_API_KEY and start again."
    )


def _rest(question: Question, manner: Manner) -> str:
    """The rest of an earlier reply that was cut, if the prompt asks for it; "" otherwise."""
    contents = question.contents
    asked_to = contents[-1].get("role") == "model" or _GO_ON.match(question.last_user_text)
    written = next((at for at in reversed(range(1, len(contents))) if contents[at].get("role") == "model"), None)
    if not asked_to or written is None:
        return ""
    earlier = Question(contents[:written], question.system, None, None)
    whole = _sample(without(earlier.last_user_text), earlier.user_turns, manner.sample)
    beginning = text_of(contents[written])
    return whole[len(beginning) :] if whole.startswith(beginning) else ""


def _sample(text: str, turn: int, name: str | None) -> str:
    if name is None and (languages := _languages_in(text)):
        return "\n\n".join(_code()[language] for language in languages) + "\n\n" + _read("note")
    name = name or next((name for name, word in _BY_WORD if word.search(text)), None) or _of_turn(turn)
    return _read(name).replace("<<question>>", _quoted(text)).replace("<<turn>>", str(turn))


def _of_turn(turn: int) -> str:
    first = len(_BY_TURN)
    return _BY_TURN[turn - 1 if turn <= first else first - 4 + (turn - first - 1) % 4]


def _languages_in(text: str) -> list[str]:
    """The languages clearly meant: “in Go”, “a Rust function”, but not the verb “go”."""
    found = re.findall(r"\b(?:in|using) ([a-z+#]+)|([a-z+#]+) (?:code|function|program|script|example)", text.lower())
    words = {word for pair in found for word in pair}
    return [language for language in _code() if language in words]


@cache
def _code() -> dict[str, str]:
    """The section of each language, by its name in lower case."""
    sections = re.split(r"(?m)^(?=## )", _read("code"))[1:]
    return {section[3:].splitlines()[0].strip().lower(): section.strip() for section in sections}


@cache
def _read(name: str) -> str:
    path = _FOLDER / f"{name}.md"
    return path.read_text(encoding="utf-8").strip() if name in samples() else f"There is no sample “{name}”."


@cache
def samples() -> frozenset[str]:
    return frozenset(path.stem for path in _FOLDER.glob("*.md"))


def _quoted(text: str) -> str:
    asked = " ".join(text.split())
    return asked if len(asked) <= _QUOTED_CHARACTERS else asked[:_QUOTED_CHARACTERS] + "…"
