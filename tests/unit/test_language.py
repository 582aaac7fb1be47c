"""The language check finds what it refuses, in each kind of file, and nothing else."""

from __future__ import annotations

import re

import pytest

from tests.language import ROOT, Language, files

TABLE = Language.read()


def language(**given: object) -> Language:
    return Language(
        phrases=[(re.compile(r"green(?:\s|\n\s*(?:#|--)\s?)+moon", re.IGNORECASE), "white moon")],
        names={"letGo": "unsubscribe", "let_go": "on_stop"},
        parts={"bell": "notification"},
        **given,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("path", "source", "line"),
    [
        ("a.md", "One.\n\nIt stays green moon.\n", 3),
        ("a.py", "x = 1  # stays green moon\n", 1),
        ("a.py", 'x = 1\n\n\ndef f() -> None:\n    """It stays\n    green moon."""\n', 6),
        ("a.py", "# it stays green\n# moon\n", 1),
        ("a.py", "text = f'{1} green moon'\n", 1),
        ("a.sql", "SELECT 1;\n-- green moon --\n", 2),
        ("a.ts", "// green moon\n", 1),
        ("Makefile", "stay: ## green moon\n", 1),
        ("a.py", "def let_go() -> None: ...\n", 1),
        ("a.py", "f(bell_count=1)\n", 1),
        ("a.py", "x.bellCount\n", 1),
        ("a.ts", "const letGo = 1;\n", 1),
    ],
)
def test_it_finds_what_is_refused(path: str, source: str, line: int) -> None:
    [finding] = set(language().findings(path, source))
    assert (finding.path, finding.line) == (path, line)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("a.md", "`green moon`\n\n```\ngreen moon\n```\n"),
        ("a.py", "bells = 1  # a green sun\n"),
        ("a.sql", "SELECT 'green moon'\n"),
    ],
)
def test_it_finds_nothing_else(path: str, source: str) -> None:
    assert list(language().findings(path, source)) == []


def test_an_exception_is_for_one_place_and_must_be_used() -> None:
    given = language(exceptions=[("a.md", "as the poet says", "a quotation"), ("b.md", "x", "nothing there")])
    found = list(given.findings("a.md", "green moon, as the poet says\ngreen moon\n"))
    assert [finding.line for finding in found] == [2]
    assert given.unused_exceptions() == ["b.md: “x”"]


def test_an_allowed_name_is_not_refused() -> None:
    assert list(language(allowed={"bell_at": "a column"}).findings("a.py", "bell_at = 1\n")) == []


def test_the_table_refuses_a_phrase_that_goes_on_in_the_next_line() -> None:
    for source in ("# in a place of\n# its own\n", "raise E('a place of '\n        'its own')\n"):
        assert list(TABLE.findings("a.py", source)), source


def test_every_exception_is_needed() -> None:
    """A place that was cleaned leaves the list."""
    for name in files():
        list(TABLE.findings(name, (ROOT / name).read_text()))
    assert TABLE.unused_exceptions() == []
