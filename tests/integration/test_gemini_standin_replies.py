"""The stand-in writes as models do: what a newcomer sees in their first room."""

from __future__ import annotations

import re

import pytest

from domain.chat.conversation import GO_ON
from tests.integration.gemini_calls import STREAM, ask, body, events, post, text_in
from tests.support.gemini_standin import GeminiStandIn


@pytest.fixture
def real(gemini_standin: GeminiStandIn) -> GeminiStandIn:
    gemini_standin.directives("[[thoughts tokens=0]]")
    return gemini_standin


def reply(server: GeminiStandIn, *texts: str) -> str:
    return text_in(events(post(server, STREAM, body(*texts))))


def test_the_first_reply_shows_what_a_page_has_to_show(real: GeminiStandIn) -> None:
    text = reply(real, "How are you?")
    assert text.startswith("Hello! I am the local stand-in for Gemini")
    for sign in ("“How are you?”", "| :--- |", "```python", "$$", "<br>", "<sub>", "\n> ", "](https://", "\n   - "):
        assert sign in text, sign
    assert "turn 1." in text
    assert text == reply(real, "How are you?"), "a prompt always gets the same reply"


def test_each_of_the_first_turns_shows_something_else(real: GeminiStandIn) -> None:
    texts: list[str] = []
    room: list[str] = []
    for number in range(1, 9):
        room.append(f"Message {number}")
        texts.append(reply(real, *room))
        room.append("Yes.")
    assert len({text[:60] for text in texts[:6]}) == 6
    assert "turn 3)" in texts[2], "the third message of the user is turn 3"
    columns = {line.count("|") - 1 for line in texts[2].splitlines() if line.startswith("| ---")}
    assert 6 in columns
    assert len(set(re.findall(r"(?m)^```(\w+)$", texts[3]))) >= 12
    assert re.search(r"[\u0600-\u06ff]", texts[4])
    assert re.search(r"[\u0900-\u097f]", texts[4])


@pytest.mark.parametrize(
    ("asked", "sign"),
    [
        ("Show me a table", "Donaudampfschifffahrt"),
        ("A formula, please", r"\frac"),
        ("Write a function in Rust", "```rust"),
        ("A long essay", "## 6."),
        ("ما هو العلم؟", "القاهرة"),
        ("नमस्ते", "गंगा"),
        ("Text of mixed directions", "סֵפֶר"),
        ("[[sample name=tables]] Hello", "Donaudampfschifffahrt"),
    ],
)
def test_words_choose_what_is_written(real: GeminiStandIn, asked: str, sign: str) -> None:
    assert sign in reply(real, asked)


def test_the_go_of_a_sentence_is_no_language(real: GeminiStandIn) -> None:
    assert "```go" not in reply(real, "Where shall we go, and what is c?")
    assert "```go" in reply(real, "Sort numbers in Go")


def test_a_long_reply_comes_in_tens_of_chunks(real: GeminiStandIn) -> None:
    chunks = ask(real, "[[sample name=long]]")
    assert 20 <= len(chunks) <= 100


def test_a_cut_reply_goes_on_where_it_ended(real: GeminiStandIn) -> None:
    whole = reply(real, "A long essay")
    chunks = ask(real, "A long essay", maxOutputTokens=100)
    beginning = text_in(chunks)
    assert chunks[-1]["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert whole.startswith(beginning)
    for request in ("Continue exactly where you stopped.", GO_ON):
        assert beginning + reply(real, "A long essay", beginning, request) == whole
    assert beginning + reply(real, "A long essay", beginning) == whole


def test_a_title_is_answered_with_one(real: GeminiStandIn) -> None:
    excerpt = "User: Why is the sky blue today, [[echo]] of all days?\n\nAssistant: Light.\n\nTitle:"
    assert reply(real, excerpt) == "Why is the sky blue today,"
    system = {"parts": [{"text": "Answer with nothing but a title of at most six words."}]}
    assert text_in(events(post(real, STREAM, body("Tides", systemInstruction=system)))) == "Tides"


def test_directives_are_not_quoted(gemini_standin: GeminiStandIn) -> None:
    assert "You wrote: “Hi there”" in reply(gemini_standin, '[[pace chunks=2]] Hi [[x note="a ]] b"]]there')


def test_the_pace_may_be_set_by_a_prompt(gemini_standin: GeminiStandIn) -> None:
    assert len(ask(gemini_standin, "[[pace chunks=3]] Hi")) == 3
    assert len(ask(gemini_standin, "Hi")) >= 8
