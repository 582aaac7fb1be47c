"""Figures, and the file that keeps the last of each section."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
STORED = ROOT / "docs" / "performance" / "last.json"


@dataclass(frozen=True, slots=True)
class Figure:
    """A median with the lowest and highest round; both are absent where something is counted once."""

    value: float
    unit: str
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return f"{short(self.value)} {self.unit}".strip()

    @property
    def spread(self) -> str:
        return "" if self.low is None or self.high is None else f"{short(self.low)}–{short(self.high)}"

    @classmethod
    def of(cls, rounds: Iterable[float], unit: str) -> Self:
        values = sorted(rounds)
        return cls(_rounded(statistics.median(values)), unit, _rounded(values[0]), _rounded(values[-1]))

    @classmethod
    def once(cls, value: float, unit: str) -> Self:
        return cls(_rounded(value), unit)


Figures = dict[str, Figure]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def short(value: float) -> str:
    """As documents show it: 1,234 or 12 or 1.2 or 0.12."""
    if abs(value) >= 10 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"


@dataclass(frozen=True, slots=True)
class Section:
    """The figures of one run of a section, and where and when they were measured."""

    figures: Figures
    machine: dict[str, str | int]
    date: str
    version: str
    commit: str

    @classmethod
    def measured(cls, figures: Figures) -> Self:
        return cls(figures, machine(), f"{datetime.now(UTC):%Y-%m-%d %H:%M}", version("gemini-backend"), _commit())


@dataclass(slots=True)
class Results:
    sections: dict[str, Section] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Figure:
        """By section and name, such as `calls.me.api`. Raises KeyError."""
        section, _, figure = name.partition(".")
        return self.sections[section].figures[figure]

    def value(self, name: str) -> float:
        return self[name].value

    @classmethod
    def read(cls, path: Path = STORED) -> Self:
        if not path.exists():
            return cls()
        stored: dict[str, Any] = json.loads(path.read_text())
        return cls(
            {
                name: Section(**{**section, "figures": {key: Figure(**one) for key, one in section["figures"].items()}})
                for name, section in stored.items()
            }
        )

    def write(self, path: Path = STORED) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({name: asdict(section) for name, section in sorted(self.sections.items())}, indent=1)
        path.write_text(text + "\n")


def machine() -> dict[str, str | int]:
    """What a reader needs to compare; no name of the machine."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(pages / 2**30),
        "python": platform.python_version(),
    }


def _commit() -> str:
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()
