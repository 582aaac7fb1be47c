"""The documents say what is true: the settings, the calls, the session in the README, and nothing of our machines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from pydantic import SecretStr

from entrypoints.local.processes import free_port
from entrypoints.settings import Settings
from tests.processes import ROOT

README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
COMPOSE = (ROOT / "docker-compose.yml").read_text()
ENV_EXAMPLE = (ROOT / ".env.example").read_text()

# Brackets keep these from finding themselves.
ANYBODYS_MACHINE = re.compile(r"(?<![\w.~])/(?:home|Users|root|work|tmp)/[\w.]")
PACKAGE_REGISTRY = re.compile(
    r"pypi[.]org|pythonhosted[.]org|registry[.](?:npmjs[.]org|yarnpkg[.]com)|proxy[.]golang[.]org|index-url[ =]+\w"
)
# Served beside what the OpenAPI document describes.
UNDESCRIBED = {"GET /openapi.json", "GET /docs", "GET /"}


@pytest.fixture(scope="module")
def product() -> Iterator[str]:
    """`make run` on a free port and new data: its URL."""
    with tempfile.TemporaryDirectory(prefix="gemini-test-") as folder:
        port, log = free_port(), Path(folder, "output")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "entrypoints.cli", "up"],
                cwd=ROOT,
                # Limits off: who pastes the README's session twice in a minute is refused the second code.
                env={
                    "PATH": os.environ["PATH"],
                    "DATA_DIR": f"{folder}/data",
                    "PORT": str(port),
                    "RATE_LIMITS": "off",
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            deadline = time.monotonic() + 60
            while "Ctrl-C stops everything" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def ask(url: str) -> bytes:
    with urlopen(url, timeout=10) as reply:  # noqa: S310 - our own process on loopback
        body: bytes = reply.read()
        return body


def defaults() -> dict[str, str]:
    """Every setting by its variable, with its default as a document shows it."""
    found = {}
    for name, field in Settings.model_fields.items():
        default = field.get_default()
        found[name.upper()] = default.get_secret_value() if isinstance(default, SecretStr) else str(default)
    return found


def compose_variables(kind: str = "") -> set[str]:
    return set(re.findall(rf"(?<!\$)\$\{{(\w+){kind}", COMPOSE))


def test_env_example_names_every_setting_with_its_default() -> None:
    named = dict(re.findall(r"(?m)^#?([A-Z_]+)=(.*)$", ENV_EXAMPLE))
    composes_own = {name: named.pop(name, None) for name in compose_variables() - defaults().keys()}
    assert list(named.items()) == list(defaults().items())
    assert composes_own == {"POSTGRES_PASSWORD": "", "VALKEY_PASSWORD": ""}


def test_what_compose_asks_for_is_left_to_be_filled_in() -> None:
    unset = set(re.findall(r"(?m)^([A-Z_]+)=$", ENV_EXAMPLE))
    assert compose_variables(r":\?") == unset - {"DATABASE_URL", "REDIS_URL"}
    assert not re.findall(r"(?m)^[A-Z_]+=.+$", ENV_EXAMPLE), "a value that somebody might leave as it is"


def test_the_readme_names_every_setting_with_its_default() -> None:
    rows = re.findall(r"(?m)^\| (?:\*\*)?`([A-Z_]+)`(?:\*\*)? \| (.*?) ?\| \S.* \|$", README)
    assert rows == list(defaults().items())


def test_the_readme_names_every_call(product: str) -> None:
    document: dict[str, Any] = json.loads(ask(f"{product}/openapi.json"))
    served = {f"{call.split()[0]} {call.split()[1]}": False for call in UNDESCRIBED}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            served[f"{method.upper()} {re.sub(r'{[^}]+}', ':', path)}"] = "security" in operation
    rows = re.findall(r"(?m)^\| ([A-Z]+ /\S*) \| (🔒)? ?\| \S.* \|$", README)
    assert {re.sub(r":\w+", ":", call): bool(lock) for call, lock in rows} == served
    assert len(rows) == len(served)
    assert all(ask(product + call.removeprefix("GET ")) for call in UNDESCRIBED)


def test_the_readmes_session_can_be_pasted_again_and_again(product: str) -> None:
    session = re.search(r"```bash\n(API=\S+)\n(.+?)```", README, re.DOTALL)
    assert session is not None
    pasted = f"API={product}\n{session[2]}"

    for status in (None, 409):
        bash = subprocess.run(
            ["bash"], input=pasted, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=120
        )
        assert bash.returncode == 0
        assert bash.stderr == ""
        signed_up, message = map(json.loads, bash.stdout.splitlines())
        assert signed_up.get("status") == status
        assert message["data"]["status"] == "completed"
        assert message["data"]["response"]


def test_the_readmes_base_url_is_that_of_make_run() -> None:
    assert f"\nAPI=http://{defaults()['HOST']}:{defaults()['PORT']}\n" in README


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_what_a_document_points_at_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link
    for path in re.findall(r"`([\w.]+(?:/[\w.]+)*/|\w+(?:/\w+)+\.py)`", text):
        assert (ROOT / path).exists(), path


def test_make_knows_the_targets_that_documents_name() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):.*## ", (ROOT / "Makefile").read_text()))
    for text in (README, CONTRIBUTING, (ROOT / ".ci" / "run").read_text(), ENV_EXAMPLE):
        assert set(re.findall(r"(?m)(?:^|`)make ([a-z-]+)", text)) <= targets


def test_the_changelog_has_a_place_for_what_comes_next() -> None:
    sections = re.findall(r"(?m)^## (.+)$", (ROOT / "CHANGELOG.md").read_text())
    assert sections[0] == "[Unreleased]"


def test_no_file_holds_a_path_of_somebodys_machine_or_the_address_of_a_package_registry() -> None:
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    assert len(files) > 50
    found = [
        f"{path.relative_to(ROOT)}: {hit[0]}"
        for path in files
        if path.is_file()
        for pattern in (ANYBODYS_MACHINE, PACKAGE_REGISTRY)
        for hit in [pattern.search(path.read_text(errors="replace"))]
        if hit
    ]
    assert found == []
