"""`make setup`: what it says, whom it trusts, what it compiles, and how it ends where it cannot go on."""

from __future__ import annotations

import io
import os
import re
import shlex
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version as distribution_version
from importlib.util import cache_from_source
from pathlib import Path

import pytest
import stripe

from local.setup import PRODUCT, certificates, explanation
from local.steps import step
from tests.support.certificates import signed_by_an_authority
from tests.support.patience import PROCESS_HANG
from tests.support.processes import ROOT

CANNOT_BE_REACHED = "The package index cannot be reached. "
IS_NOT_TRUSTED = "This machine does not trust the certificate of the package index."


IN_OWN_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")


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


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("error: Failed to write: No space left on device (os error 28)", "The disk is full"),
        ("OSError: [Errno 28] No space left on device: '/x'", "The disk is full"),
        ("Error: [Errno 30] Read-only file system: '/x/.venv'", "This folder cannot be written to."),
        ("Error: [Errno 13] Permission denied: '/x/.venv'", "This folder cannot be written to."),
    ],
)
def test_what_the_machine_lacks_is_put_into_a_sentence(output: str, sentence: str) -> None:
    assert explanation(f"some\nlines before\n{output}").startswith(sentence)


@pytest.mark.parametrize(
    ("size", "mounted", "sentence"),
    [
        ("4g", 'mount -o remount,bind,ro "$1"', "This folder cannot be written to. "),
        ("1m", ":", "The disk is full: "),
    ],
)
def test_a_folder_that_cannot_hold_it_ends_in_one_clear_sentence(
    tmp_path: Path, size: str, mounted: str, sentence: str
) -> None:
    """Root may write anywhere, so the folder is its own file system."""
    lock = (ROOT / "requirements.lock").read_bytes()
    (tmp_path / "requirements.lock").write_bytes(lock)
    script = (
        f'set -e; mount -t tmpfs -o size={size} tmpfs "$1"; cp "$2" "$1/requirements.lock"; {mounted}; cd "$1";'
        ' exec "$3" -m local.setup'
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    done = subprocess.run(
        [*IN_OWN_MOUNTS, "sh", "-c", script, "sh", folder, tmp_path / "requirements.lock", sys.executable],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PROCESS_HANG,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith(sentence), done.stderr
    assert done.stderr.count("\n") == 1


class Index(SimpleHTTPRequestHandler):
    """A package index with one package, by HTTPS."""

    def do_GET(self) -> None:
        name = self.path.strip("/").rpartition("/")[2]
        body = WHEEL if name.endswith(".whl") else f'<a href="/files/{WHEEL_NAME}">{WHEEL_NAME}</a>'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream" if body is WHEEL else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, format: str, *values: object) -> None: ...


WHEEL_NAME = "nothing_at_all-1.0-py3-none-any.whl"


def _wheel() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        info = "nothing_at_all-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: nothing-at-all\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return content.getvalue()


WHEEL = _wheel()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Its URL, and the certificate of the authority that signed its own: as behind a proxy that re-signs TLS."""
    certificate, authority = tmp_path / "certificate.pem", tmp_path / "authority.pem"
    signed_by_an_authority(certificate, authority)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}/simple", authority
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("tool", ["uv", "pip"])
@pytest.mark.parametrize("trusted", [True, False])
def test_the_tools_trust_whom_the_system_trusts(
    index: tuple[str, Path], tmp_path: Path, tool: str, trusted: bool
) -> None:
    url, authority = index
    given = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1"}
    if trusted:
        given["SSL_CERT_FILE"] = str(authority)  # as the system's own list of certificates
    version = tuple(int(part) for part in distribution_version("pip").split(".")[:2])
    installers = {
        "uv": ["uv", "pip", "install", "--no-cache", "--python", sys.executable],
        "pip": ["pip", "install", "--no-cache-dir", "--retries", "0", "--disable-pip-version-check"],
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            *installers[tool],
            "--target",
            tmp_path / "target",
            "--index-url",
            url,
            "nothing-at-all",
        ],
        env={**given, **certificates(version, given)},
        capture_output=True,
        text=True,
        timeout=PROCESS_HANG,
        check=False,
    )
    assert (done.returncode == 0) == trusted, done.stdout + done.stderr
    if not trusted:
        assert explanation(done.stdout + done.stderr).startswith(IS_NOT_TRUSTED), done.stdout + done.stderr


def test_a_python_that_is_too_old_is_one_line(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    old = tmp_path / "python3"
    pretend = "import sys; sys.version_info = (3, 10, 9); exec(sys.argv[1])"
    old.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c '{pretend}' \"$2\"\n")
    old.chmod(0o755)
    done = subprocess.run(["make", "PYTHON=./python3"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "setup" in done.stdout, "without a target it prints its help"
    done = subprocess.run(
        ["make", "PYTHON=./python3", "run"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "Python 3.11 or newer is needed; name it with: make PYTHON=/path/to/python3"
    assert "Traceback" not in done.stderr


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
