"""The documents that show figures, written from the stored results and checked against them.

`<!-- bench: calls.me.api -->5.7 f<!-- end -->` holds one figure and `<!-- bench: calls -->` … `<!-- end -->` a table.
Authors write the two comments; the benchmark writes what is between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import plots
from tests.benchmarks.figures import ROOT, Results
from tests.benchmarks.tables import TABLES

PAGE = ROOT / "docs" / "performance.md"
FOLDER = ROOT / "docs" / "performance"
_HELD = re.compile(r"(<!-- bench: ([\w.-]+) -->)(.*?)(<!-- end -->)", re.DOTALL)
#: A quantity that only a measurement can have.
_MEASURED = re.compile(
    r"\b\d[\d.,]*\s?(?:f\b|µs\b|[×x]\s?bare\b|(?:req|requests|replies|messages|pieces)(?:/s\b| (?:a|per) second\b))"
    r"|\bp(?:50|95|99)(?:\s|:|=)+\d[\d.,]*|\b\d[\d.,]*\s?ms\s\(?p(?:50|95|99)\b"
)
#: On the page itself and in the README, times and sizes are measured, too.
_MORE = re.compile(r"\b\d[\d.,]*\s?(?:ms|MB|µs|f|%)(?!\w)")


def documents() -> list[Path]:
    """Decisions are records of their day, and the change log of its release."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(path for path in found if path.parent.name != "decisions" and path.name != "CHANGELOG.md")


def filled(text: str, results: Results) -> str:
    """The text with every figure and table as the results have them. Raises KeyError for an unknown one."""

    def hold(match: re.Match[str]) -> str:
        opening, name, _, closing = match.groups()
        if name in TABLES:
            return f"{opening}\n\n{TABLES[name](results).strip()}\n\n{closing}"
        return f"{opening}{results[name]}{closing}"

    return _HELD.sub(hold, text)


def strays(text: str, *, strict: bool = False) -> Iterator[str]:
    """Figures of performance that no result stands behind. `strict`: any time, size or share is one."""
    own = _HELD.sub("", text)
    for pattern in (_MEASURED, _MORE) if strict else (_MEASURED,):
        yield from (match[0] for match in pattern.finditer(own))


def is_strict(path: Path) -> bool:
    return path == PAGE


def rewrite(results: Results) -> None:
    for path in documents():
        text = path.read_text()
        if (new := filled(text, results)) != text:
            path.write_text(new)
    for name, drawn in plots.drawn(results).items():
        (FOLDER / f"{name}.svg").write_text(drawn)
