"""The production image without Docker: the steps of the Dockerfile, carried out in a folder.

Every absolute path of the Dockerfile becomes one below that folder. What it leaves out is the base image: `python` is
the interpreter that runs the tests. The steps install from the package index or its cache, as `make setup` does.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from local.processes import CURRENT_USER, RunAs
from tests.support.processes import ROOT

#: Where the Dockerfile may write.
_FOLDERS = re.compile(r"(?<![\w./])/(?=(?:opt|src)\b)")
_ELSEWHERE = re.compile(r"(?<![\w./])/(?:bin|etc|home|root|sbin|srv|tmp|usr|var)\b")
#: These affect speed only: caches are used, and bytecode is written when a module is first imported.
_FASTER = {"UV_NO_CACHE": "", "UV_COMPILE_BYTECODE": "0", "PYTHONDONTWRITEBYTECODE": "", "UV_LINK_MODE": "copy"}


@dataclass
class Image:
    """The result of the Dockerfile, and how to run it."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: int = 0
    group: int = 0
    command: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def path(self, inside: str) -> Path:
        """The location of a path of the image."""
        return self.root / os.path.normpath(f"/{self.workdir}/{inside}").lstrip("/")

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | int
    ) -> subprocess.Popen[bytes]:
        """Run as in a container: without our environment, and not as root."""
        run_as = self._unprivileged()
        return subprocess.Popen(
            [*run_as.prefix, *command],
            cwd=self.path("."),
            env={
                **self.environment,
                "PATH": f"{self.environment['PATH']}:{os.defpath}",
                "TMPDIR": str(self.folder / "tmp"),
                "PYTHONPYCACHEPREFIX": str(self.folder / "tmp" / "pycache"),
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            user=run_as.user,
            group=run_as.group,
            extra_groups=None if run_as.user is None else [],
            start_new_session=True,
        )

    def seal(self) -> None:
        """Make it read-only, and readable for everyone."""
        (self.folder / "tmp").mkdir()
        (self.folder / "tmp").chmod(0o1777)
        self.folder.chmod(0o755)
        subprocess.run(["chmod", "-R", "a+rX,a-w", self.root], check=True)

    def _unprivileged(self) -> RunAs:
        """The image's user if we are root; otherwise we are unprivileged already."""
        if os.geteuid() != 0:
            return CURRENT_USER
        candidates = [RunAs(user=self.user, group=self.group)]
        # If only root can reach the interpreter: in a user namespace root only looks like another user.
        if unshare := shutil.which("unshare"):
            candidates.append(RunAs(prefix=(unshare, "--user", f"--map-user={self.user}", "--")))
        return next(candidate for candidate in candidates if self._works(candidate))

    def _works(self, run_as: RunAs) -> bool:
        try:
            probe = subprocess.run(
                [*run_as.prefix, "python", "-c", ""],
                env=self.environment,
                user=run_as.user,
                group=run_as.group,
                extra_groups=None if run_as.user is None else [],
                capture_output=True,
                check=False,
            )
        except PermissionError:
            return False
        return probe.returncode == 0


def remove(folder: Path) -> None:
    """Delete an image, or what is left of one that could not be built."""
    subprocess.run(["chmod", "-R", "u+w", folder], check=True)
    shutil.rmtree(folder)


def build(folder: Path, *, dockerfile: Path = ROOT / "Dockerfile", context: Path = ROOT) -> Image:
    """Its last stage."""
    return _Build(folder, context).run(dockerfile.read_text())


class _Build:
    def __init__(self, folder: Path, context: Path) -> None:
        self.folder = folder
        self.context = context
        self.sent = re.findall(r"(?m)^!(\S+)$", (context / ".dockerignore").read_text())
        self.stages: dict[str, Path] = {}
        self.name = ""
        self.image = Image(folder)
        self.arguments: dict[str, str] = {}
        base = folder / "base"
        base.mkdir()
        python = base / "python"
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(_base_python())} "$@"\n')
        python.chmod(0o755)
        self.base = str(base)

    def run(self, dockerfile: str) -> Image:
        for instruction, text in _instructions(dockerfile):
            getattr(self, f"_{instruction.lower()}")(text)
        self.image.seal()
        return self.image

    def _from(self, text: str) -> None:
        if self.image.root.exists():
            # The next stage uses the same paths, because scripts contain those of their interpreters.
            self.stages[self.name] = self.image.root.rename(self.folder / f"stage-{self.name}")
        self.name = text.partition(" AS ")[2] or "last"
        self.image = Image(self.folder, {"PATH": self.base})
        self.image.root.mkdir()

    def _arg(self, text: str) -> None:
        name, _, value = text.partition("=")
        self.arguments[name] = "".join(shlex.split(value))

    def _env(self, text: str) -> None:
        known = self.image.environment
        for word in shlex.split(text):
            name, _, value = word.partition("=")
            value = re.sub(r"\$\{?(\w+)\}?", lambda found: known[found[1]], self._moved(value))
            known[name] = _FASTER.get(name, value)

    def _workdir(self, text: str) -> None:
        self.image.workdir = text
        self.image.path(".").mkdir(parents=True, exist_ok=True)

    def _copy(self, text: str) -> None:
        *sources, target = shlex.split(text)
        to = self.image.path(target)
        if (stage := sources[0]).startswith("--from="):
            to.parent.mkdir(parents=True, exist_ok=True)
            (self.stages[stage.removeprefix("--from=")] / sources[1].lstrip("/")).rename(to)
            return
        for source in sources:
            assert source in self.sent, f".dockerignore keeps {source} from the Dockerfile"
            if (self.context / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "node_modules")
                shutil.copytree(self.context / source, to, ignore=ignored)
            else:
                shutil.copy(self.context / source, to)

    def _run(self, text: str) -> None:
        done = subprocess.run(
            ["/bin/sh", "-c", self._moved(text)],
            cwd=self.image.path("."),
            env={**_of_this_machine(), **self.arguments, **self._environment(), "UV_LINK_MODE": "copy"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"RUN {text}\n{done.stdout}{done.stderr}"

    def _environment(self) -> dict[str, str]:
        known = self.image.environment
        return {name: value for name, value in known.items() if value} | {"PATH": f"{known['PATH']}:{os.defpath}"}

    def _user(self, text: str) -> None:
        self.image.user, self.image.group = map(int, text.split(":"))

    def _cmd(self, text: str) -> None:
        self.image.command = json.loads(text)

    def _expose(self, text: str) -> None: ...

    def _stopsignal(self, text: str) -> None:
        assert text == "SIGTERM"

    def _moved(self, text: str) -> str:
        assert not _ELSEWHERE.search(text), f"{text} writes where the test cannot follow"
        return _FOLDERS.sub(f"{self.image.root}/", text)


def _instructions(dockerfile: str) -> list[tuple[str, str]]:
    lines = "\n".join(line for line in dockerfile.splitlines() if not line.lstrip().startswith("#"))
    joined = lines.replace("\\\n", " ")
    return [(name, text.strip()) for name, text in re.findall(r"(?m)^([A-Z]+) (.+)$", joined)]


def _base_python() -> str:
    """The interpreter that our environment was made from."""
    return str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())


def _of_this_machine() -> dict[str, str]:
    """Where packages come from on this machine, and nothing else of the tests' environment."""
    names = ("HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
    kinds = ("PIP_", "UV_", "XDG_")
    return {
        name: value
        for name, value in os.environ.items()
        if name in names or name.startswith(kinds) or name.lower().endswith("_proxy")
    }
