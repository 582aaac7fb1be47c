"""The whole product on this machine, as `make run` starts it, and a browser to use it with.

Not part of the default run, because it needs Chromium and npm: `make test-browser`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, async_playwright

from tests.browser.visitor import DESKTOP, Screen, Site, Visitor
from tests.support.gemini_standin import GeminiStandIn
from tests.support.ports import free_port
from tests.support.processes import ROOT
from tests.support.stripe_standin import StripeStandIn

WEB = ROOT / "entrypoints" / "web"
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

_measured: list[tuple[str, str]] = []


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="gemini-test-") as folder:
        port, log = free_port(), Path(folder, "output")
        environment = {
            "PATH": os.environ["PATH"],
            "DATA_DIR": f"{folder}/data",
            "PORT": str(port),
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
            "RATE_LIMITS": "off",  # one address signs everybody up
        }
        with log.open("wb") as output:
            command = [sys.executable, "-m", "entrypoints.cli", "up"]
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            deadline = time.monotonic() + 60
            while "Ctrl-C stops everything" not in (said := log.read_text()):
                assert process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.05)
            gemini, stripe = re.findall(r"a stand-in at (?:http://)?(127\.0\.0\.1:\d+);", said)
            yield Site(
                environment["PUBLIC_URL"],
                GeminiStandIn(f"http://{gemini}"),
                StripeStandIn(f"http://{stripe}"),
                Path(environment["DATA_DIR"]),
            )
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="session")
def npm() -> str:
    found = shutil.which("npm")
    assert found, "npm is needed to check the page's build and its accessibility; on Debian: apt install npm"
    if not (WEB / "node_modules" / "axe-core").exists():
        subprocess.run([found, "ci", "--silent"], cwd=WEB, check=True)
    return found


@pytest.fixture(scope="session")
def axe(npm: str) -> str:
    """The source code of axe-core."""
    return (WEB / "node_modules" / "axe-core" / "axe.min.js").read_text()


def launch_options(*arguments: str) -> dict[str, Any]:
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _CHROMIUM)), None)
    assert path, "Chromium is needed: install it (on Debian: apt install chromium) or name it by CHROMIUM"
    # Chromium's sandbox refuses to run as root, as in a container.
    return {"executable_path": path, "args": [*arguments, *(["--no-sandbox"] if os.geteuid() == 0 else [])]}


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as started:
        browser = await started.chromium.launch(**launch_options())
        yield browser
        await browser.close()


@pytest.fixture
async def visit(site: Site, browser: Browser, axe: str) -> AsyncIterator[Callable[..., Awaitable[Visitor]]]:
    """Opens the page as a new visitor with a separate browser profile; any error in the page fails the test."""
    site.stripe.control("POST", "/reset")  # its clock follows the real one again
    site.gemini.clear()
    site.gemini.pace(first_chunk_seconds=0.05, chunk_seconds=0.02, chunks=9)
    visitors: list[Visitor] = []

    async def visit(screen: Screen = DESKTOP) -> Visitor:
        visitors.append(await Visitor.come(site, browser, screen, axe))
        return visitors[-1]

    yield visit
    for visitor in visitors:
        await visitor.leave()


@pytest.fixture
def measured() -> Callable[[str, str], None]:
    """Records a figure for the table at the end."""

    def note(name: str, value: str) -> None:
        _measured.append((name, value))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, value in _measured:
        terminalreporter.write_line(f"{name:<44} {value}")
