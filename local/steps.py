"""Progress at a terminal: a line for each step, and one every few seconds while a step lasts."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

EVERY_SECONDS = 5.0


def say(text: str) -> None:
    with suppress(OSError):  # the reader may be gone, and what was started must still be stopped
        print(text, flush=True)


def complain(text: str) -> None:
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


@contextmanager
def step(text: str, *, detail: Callable[[], str] = str, every: float = EVERY_SECONDS) -> Iterator[None]:
    """`detail` adds the step's current state to the repeated line."""
    ended, started = threading.Event(), time.monotonic()

    def repeat() -> None:
        while not ended.wait(every):
            more = detail()
            say(f"  … {time.monotonic() - started:.0f} s{f': {more}' if more else ''}")

    say(f"{text} …")
    repeating = threading.Thread(target=repeat, name="step", daemon=True)
    repeating.start()
    try:
        yield
    finally:
        ended.set()
        repeating.join()
