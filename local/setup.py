"""`make setup`: the environment in .venv, from requirements.lock.

It runs before anything is installed, with the Python that the environment is made from, so it and its imports use the
standard library only. The output of its tools goes to .venv/setup.log.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from local.steps import complain, say, step

PRODUCT = ("domain", "application", "adapters", "entrypoints", "local")
LOCK = "requirements.lock"

#: Where systems keep their trusted certificates, for a pip that brings its own.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine, macOS
)
_CERTIFICATE = re.compile(
    r"certificate.verify.failed|UnknownIssuer|invalid peer certificate|self.signed", re.IGNORECASE
)
_NETWORK = re.compile(
    r"Failed to establish a new connection|connection broken by|ConnectTimeout|ReadTimeout|Max retries exceeded"
    r"|error sending request|dns error|tcp connect error|Network is unreachable|name resolution",
    re.IGNORECASE,
)


_DISK = re.compile(r"No space left on device|Disk quota exceeded|os error 28|Errno 28", re.IGNORECASE)
_FOLDER = re.compile(r"Read-only file system|Permission denied", re.IGNORECASE)


_DISK_FULL = "The disk is full: the environment in .venv needs about 900 MB. Make room and try again."
_LEAST_FREE = 100 * 2**20  # with less it fails in any case, whatever is cached


class SetupFailed(Exception):
    """One clear sentence for the person at the terminal, if needed after the output of the tool."""


def main() -> int:
    try:
        set_up(Path.cwd(), dict(os.environ))
    except SetupFailed as error:
        complain(str(error))
        return 1
    except OSError as error:
        complain(_sentence(f"{error}") or f"The set-up failed: {error}.")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def set_up(root: Path, environment: dict[str, str]) -> None:
    """Raises SetupFailed."""
    venv = root / ".venv"
    python, log = str(venv / "bin" / "python"), venv / "setup.log"
    lock = (root / LOCK).read_text()
    if shutil.disk_usage(root).free < _LEAST_FREE:
        raise SetupFailed(_DISK_FULL)
    with step("Creating the environment in .venv"):
        _create(venv)
    environment |= certificates(_pip_version(venv), environment, pip_config=_pip_config(python))
    uv = [str(venv / "bin" / "uv"), "pip", "install", "--python", python]

    def perform(text: str, *commands: list[str]) -> None:
        before = log.stat().st_size if log.exists() else 0
        with step(text, detail=lambda: _last_line(_since(log, before))):
            for command in commands:
                _run(command, root, environment, log)

    own = venv / "uv.lock"
    own.write_text(_uv_lines(lock))
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--require-hashes", "-r", str(own)]
    perform(f"Installing uv {pinned_version(lock, 'uv')}", pip)
    # With PYTHONDONTWRITEBYTECODE every start would compile them again. The tests' tools are not compiled.
    runtime = ["--compile-bytecode", "--constraint", LOCK, "--extra", "local", "-r", "pyproject.toml"]
    perform("Installing the product's packages and compiling them", [*uv, "--require-hashes", *runtime])
    perform("Installing the tools for tests and checks", [*uv, "--require-hashes", "-r", LOCK])
    perform(
        "Installing gemini-backend and compiling it",
        [*uv, "--no-deps", "--no-build-isolation", "--editable", "."],
        [python, "-m", "compileall", "-q", *PRODUCT],
    )
    say("The environment is ready.")


def certificates(pip: tuple[int, ...], environment: Mapping[str, str], *, pip_config: str = "") -> dict[str, str]:
    """Variables that make uv and pip trust the system's certificates, for a proxy that re-signs TLS. Set ones stay."""
    found = {} if environment.get("UV_SYSTEM_CERTS") else {"UV_SYSTEM_CERTS": "true"}
    if pip >= (24, 2) or environment.get("PIP_CERT") or re.search(r"\.cert=", pip_config):
        return found
    if pip >= (23, 3):
        return {**found, "PIP_USE_FEATURE": f"{environment.get('PIP_USE_FEATURE', '')} truststore".strip()}
    bundles = (environment.get("SSL_CERT_FILE", ""), *_BUNDLES)
    bundle = next((bundle for bundle in bundles if bundle and Path(bundle).exists()), None)
    return {**found, "PIP_CERT": bundle} if bundle else found


def explanation(output: str) -> str:
    """A sentence about a tool that failed with this output."""
    if sentence := _sentence(output):
        return sentence
    if _CERTIFICATE.search(output):
        return (
            "This machine does not trust the certificate of the package index. Behind a proxy that re-signs TLS, add"
            " the proxy's certificate to the system's and try again. .venv/setup.log has the details."
        )
    if _NETWORK.search(output):
        return (
            "The package index cannot be reached. Check the network (behind a proxy, HTTPS_PROXY) and try again."
            " .venv/setup.log has the details."
        )
    tail = "\n".join(f"  {line}" for line in output.splitlines()[-15:])
    return f"{tail}\nThe set-up failed. .venv/setup.log has the details."


def _sentence(output: str) -> str:
    """What the machine lacks, if that is what the output is about."""
    if _DISK.search(output):
        return _DISK_FULL
    if _FOLDER.search(output):
        return "This folder cannot be written to. Choose another one, or change its owner, and try again."
    return ""


def pinned_version(lock: str, name: str) -> str:
    version = re.search(rf"(?m)^{name}==(\S+)", lock)
    if version is None:
        raise SetupFailed(f"{LOCK} does not name {name}.")
    return version[1]


def _create(venv: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(venv)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        output = f"{done.stdout}{done.stderr}".rstrip()
        raise SetupFailed(
            _sentence(output)
            or f"{output}\n{sys.executable} cannot make a virtual environment (on Debian: apt install python3-venv)."
        )


def _uv_lines(lock: str) -> str:
    """uv's lines of the lock file, so that uv is checked by hash too."""
    return "".join(re.findall(r"(?m)^uv==.*\n(?:[ \t].*\n)*", lock))


def _pip_version(venv: Path) -> tuple[int, ...]:
    for folder in venv.glob("lib/python*/site-packages/pip-*.dist-info"):
        return tuple(map(int, re.findall(r"\d+", folder.name)))
    return ()


def _pip_config(python: str) -> str:
    return subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False).stdout


def _run(command: Sequence[str], root: Path, environment: Mapping[str, str], log: Path) -> None:
    before = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        done = subprocess.run(
            command,
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        raise SetupFailed(explanation(_since(log, before)))


def _since(log: Path, position: int) -> str:
    return log.read_bytes()[position:].decode(errors="replace")


def _last_line(output: str) -> str:
    """Ignores uv's list of installed packages."""
    lines = [line.strip() for line in output.splitlines() if not line.startswith((" + ", " - "))]
    return lines[-1][:100] if lines else ""


if __name__ == "__main__":
    sys.exit(main())
