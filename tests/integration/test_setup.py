"""`make setup`: what it says, whom it trusts, what it compiles, and how it ends where it cannot go on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.util import cache_from_source
from pathlib import Path

import pytest
import stripe

from local.setup import PRODUCT, certificates, explanation
from local.steps import step
from tests.support.patience import PROCESS_HANG
from tests.support.processes import ROOT

CANNOT_BE_REACHED = "The package index cannot be reached. "
IS_NOT_TRUSTED = "This machine does not trust the certificate of the package index."


def test_without_a_network_it_ends_in_one_clear_sentence(tmp_path: Path) -> None:
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:1/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    nowhere["PIP_RETRIES"] = "1"
    done = subprocess.run(
        [sys.executable, "-m", "local.setup"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **nowhere},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    steps = [line for line in done.stdout.splitlines() if not line.startswith("  ")]
    assert steps[0] == "Creating the environment in .venv …"
    assert re.fullmatch(r"Installing uv [\d.]+ …", steps[1])
    assert len(steps) == 2
    assert done.stderr.startswith(CANNOT_BE_REACHED)
    assert done.stderr.count("\n") == 1
    assert "Retrying" in (tmp_path / ".venv" / "setup.log").read_text()


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("after connection broken by 'NewConnectionError(…: [Errno -2] Name or service not known')", CANNOT_BE_REACHED),
        ("after connection broken by 'ReadTimeoutError(\"Read timed out. (read timeout=15)\")'", CANNOT_BE_REACHED),
        ("cause: error sending request for url (https://…)\n cause: client error (Connect)", CANNOT_BE_REACHED),
        ("cause: tcp connect error\n  cause: Connection refused (os error 111)", CANNOT_BE_REACHED),
        (
            "connection broken by 'SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]",
            IS_NOT_TRUSTED,
        ),
        ("error sending request\n cause: invalid peer certificate: UnknownIssuer", IS_NOT_TRUSTED),
    ],
)
def test_what_the_tools_complain_of_is_put_into_a_sentence(output: str, sentence: str) -> None:
    assert explanation(output).startswith(sentence)
    assert "\n" not in explanation(output)


def test_anything_else_is_shown_as_it_is() -> None:
    hashes = "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE."
    assert explanation(f"Collecting uv\n{hashes}\n") == (
        f"  Collecting uv\n  {hashes}\nThe set-up failed. .venv/setup.log has the details."
    )


@pytest.mark.parametrize(
    ("pip", "given", "config", "added"),
    [
        ((24, 2), {}, "", {"UV_SYSTEM_CERTS": "true"}),
        ((26, 0), {}, "", {"UV_SYSTEM_CERTS": "true"}),
        ((23, 3, 1), {}, "", {"UV_SYSTEM_CERTS": "true", "PIP_USE_FEATURE": "truststore"}),
        ((24, 1), {"PIP_USE_FEATURE": "x"}, "", {"UV_SYSTEM_CERTS": "true", "PIP_USE_FEATURE": "x truststore"}),
        ((24, 1), {"UV_SYSTEM_CERTS": "false", "PIP_CERT": "/corp.pem"}, "", {}),
        ((23, 2, 1), {"PIP_CERT": "/corp.pem"}, "", {"UV_SYSTEM_CERTS": "true"}),
        ((23, 2, 1), {}, "global.cert='/corp.pem'\n", {"UV_SYSTEM_CERTS": "true"}),
    ],
)  # fmt: skip
def test_the_systems_certificates_are_trusted(
    pip: tuple[int, ...], given: Mapping[str, str], config: str, added: dict[str, str]
) -> None:
    assert certificates(pip, given, pip_config=config) == added


def test_a_pip_that_cannot_ask_the_system_is_given_its_file() -> None:
    found = certificates((23, 2, 1), {})
    assert set(found) <= {"UV_SYSTEM_CERTS", "PIP_CERT"}
    if "PIP_CERT" in found:  # not where the system keeps its certificates otherwise, as macOS does
        assert "BEGIN CERTIFICATE" in Path(found["PIP_CERT"]).read_text(errors="replace")


def test_nothing_is_left_to_be_compiled_at_a_start() -> None:
    """PYTHONDONTWRITEBYTECODE would have each start compile it again. Most of what is looked at nobody here imports."""
    assert stripe.__file__
    theirs = [*Path(stripe.__file__).parent.rglob("*.py")]
    set_up_at = (ROOT / ".venv" / ".ready").stat().st_mtime if (ROOT / ".venv" / ".ready").exists() else time.time()
    ours = [path for name in PRODUCT for path in (ROOT / name).rglob("*.py") if path.stat().st_mtime < set_up_at]
    assert len(theirs) > 100
    missing = [str(path) for path in theirs + ours if not Path(cache_from_source(str(path))).exists()]
    assert missing == []


def test_a_step_is_never_silent_for_long(capsys: pytest.CaptureFixture[str]) -> None:
    output = ""
    give_up = time.monotonic() + PROCESS_HANG
    with step("Doing something slow", detail=lambda: "half of it", every=0.01):
        while output.count("half of it") < 3:
            assert time.monotonic() < give_up
            time.sleep(0.01)
            output += capsys.readouterr().out
    lines = output.splitlines()
    assert lines[0] == "Doing something slow …"
    assert re.fullmatch(r"  … \d+ s: half of it", lines[1])


def test_the_steps_tools_are_pythons_own() -> None:
    """They run before anything is installed."""
    code = (
        "import sys; known = set(sys.modules); import local.setup as setup;"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - known} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["local"]
