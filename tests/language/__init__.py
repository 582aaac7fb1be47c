"""The language check: words and names that this code base has replaced, and where they still stand.

`words.toml` has the table and the reasoned exceptions. Prose is checked in Markdown, in comments and strings of Python,
in comments of SQL, and in the page's sources; names are checked in code.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("words.toml")
SUFFIXES = {".py", ".md", ".sql", ".ts", ".tsx", ".mjs", ".html", ".css", ".toml", ".yml", ".yaml"}
NAMES_IN = {".py", ".ts", ".tsx", ".mjs"}
#: Generated files, migrations, which are never edited, and this table with its tests.
SKIPPED = (
    "adapters/postgres/migrations/models/",
    "entrypoints/web/dist/",
    "entrypoints/web/package",
    "tests/language/words.toml",
    "tests/unit/test_language.py",
)
NAMED = {"Makefile", "Dockerfile", ".env.example"}

_PROSE_TOKENS = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
#: Between the words of a phrase: blanks, a line break with the next line's comment sign, a literal's end and beginning.
_GAP = r"""(?:\s|["']\s*\n?\s*f?["']|\n\s*(?:#:?|--|//|\*)\s?)+"""


@dataclass(frozen=True, slots=True)
class Finding:
    path: str
    line: int
    text: str
    better: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: “{self.text}”: {self.better}"


@dataclass(slots=True)
class Language:
    """What is refused, and what is excepted."""

    phrases: list[tuple[re.Pattern[str], str]]
    names: dict[str, str]
    parts: dict[str, str]
    #: Names that stay as they are, with the reason.
    allowed: dict[str, str] = field(default_factory=dict)
    #: Path, the text of the line, and the reason.
    exceptions: list[tuple[str, str, str]] = field(default_factory=list)
    used: set[int] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path = TABLE) -> Language:
        table = tomllib.loads(path.read_text())
        return cls(
            phrases=[(_pattern(refused), better) for refused, better in table["phrases"].items()],
            names=table["names"],
            parts=table["parts"],
            allowed=table["allowed"],
            exceptions=[(one["path"], one["line"], one["reason"]) for one in table.get("exceptions", [])],
        )

    def findings(self, path: str, source: str) -> Iterator[Finding]:
        """Those of one file, without the excepted ones."""
        lines = source.split("\n")
        for line, text, better in [*self._in_prose(path, source), *self._in_names(path, source)]:
            if not self._is_excepted(path, lines[line - 1]):
                yield Finding(path, line, text, better)

    def unused_exceptions(self) -> list[str]:
        return [f"{path}: “{line}”" for index, (path, line, _) in enumerate(self.exceptions) if index not in self.used]

    def _in_prose(self, path: str, source: str) -> Iterator[tuple[int, str, str]]:
        for start, prose in _prose(path, source):
            for pattern, better in self.phrases:
                for hit in pattern.finditer(prose):
                    yield start + prose.count("\n", 0, hit.start()), " ".join(hit[0].split()), better

    def _in_names(self, path: str, source: str) -> Iterator[tuple[int, str, str]]:
        for line, name in _names(path, source):
            if name in self.allowed:
                continue
            if name in self.names:
                yield line, name, self.names[name]
            for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name):
                if part.lower() in self.parts:
                    yield line, name, self.parts[part.lower()]

    def _is_excepted(self, path: str, line: str) -> bool:
        found = [index for index, (where, text, _) in enumerate(self.exceptions) if where == path and text in line]
        self.used.update(found)
        return bool(found)


def _pattern(refused: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{refused.replace(' ', _GAP)})(?![\w-])", re.IGNORECASE)


def _prose(path: str, source: str) -> Iterator[tuple[int, str]]:
    """Pieces of prose, each with the number of its first line."""
    if path.endswith(".py"):
        yield from _prose_of_python(source)
    elif path.endswith(".md"):
        yield 1, re.sub(r"(?ms)^ *```.*?^ *```$|`[^`\n]+`", lambda code: "\n" * code[0].count("\n"), source)
    elif path.endswith(".sql"):
        for number, line in enumerate(source.split("\n"), 1):
            if "--" in line:
                yield number, line.partition("--")[2]
    else:
        yield 1, source


def _prose_of_python(source: str) -> Iterator[tuple[int, str]]:
    """Neighbouring comments and strings as one piece: a phrase may go on in the next line."""
    piece: list[str] = []
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _PROSE_TOKENS:
            continue
        if piece and token.start[0] - last > 1:
            yield first, "".join(piece)
            piece = []
        if not piece:
            first = last = token.start[0]
        piece.append("\n" * (token.start[0] - last) + ("" if not piece else " ") + token.string)
        last = token.end[0]
    if piece:
        yield first, "".join(piece)


def _names(path: str, source: str) -> Iterator[tuple[int, str]]:
    """What this file defines or uses as a name, once for each line."""
    if path.endswith(".py"):
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    yield node.lineno, node.name
                case ast.arg() if node.arg:
                    yield node.lineno, node.arg
                case ast.Name():
                    yield node.lineno, node.id
                case ast.Attribute():
                    yield node.lineno, node.attr
                case ast.keyword() if node.arg:
                    yield node.value.lineno, node.arg
    elif Path(path).suffix in NAMES_IN:
        for number, line in enumerate(source.split("\n"), 1):
            for name in set(re.findall(r"[A-Za-z_$][\w$]*", line)):
                yield number, name


def files() -> list[str]:
    """Those of the repository whose language is checked."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [
        name
        for name in sorted({*listed.split("\0")} - {""})
        if (Path(name).suffix in SUFFIXES or Path(name).name in NAMED)
        and not name.startswith(SKIPPED)
        and (ROOT / name).is_file()
    ]


def check(language: Language, names: Iterable[str]) -> list[Finding]:
    """Every finding in these files."""
    return [
        finding
        for name in names
        for finding in sorted(set(language.findings(name, (ROOT / name).read_text())), key=lambda found: found.line)
    ]
