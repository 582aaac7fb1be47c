"""What processes use, through /proc: Linux only."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """The process and its descendants."""
    children: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                children[int(_stat(folder)[1])].append(int(folder.name))
    found = [root]
    for pid in found:
        found.extend(children[pid])
    return found


def cpu_seconds(root: int) -> float:
    """User and system time so far, of a process and its descendants, those that ended included."""
    return sum(map(_own_seconds, tree(root))) + _ended_seconds(root)


def _own_seconds(pid: int) -> float:
    """In nanoseconds, for each thread: the times in `stat` are in ticks of 10 ms."""
    seconds = 0.0
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                seconds += int((thread / "schedstat").read_text().split()[0]) / 1e9
    return seconds


def _ended_seconds(pid: int) -> float:
    with suppress(OSError):
        fields = _stat(Path(f"/proc/{pid}"))
        return (int(fields[13]) + int(fields[14])) * _TICK
    return 0.0


def _stat(folder: Path) -> list[str]:
    """The fields after the name: state, parent, …"""
    return (folder / "stat").read_text().rsplit(")", 1)[1].split()


def pss_megabytes(pids: Iterable[int]) -> float:
    """Memory, with what processes share counted in part for each."""
    kilobytes = 0
    for pid in pids:
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            kilobytes += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes / 1024


def open_files(pid: int) -> int:
    with suppress(OSError):
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return 0
