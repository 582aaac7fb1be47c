"""Services: what `up` starts, watches and stops."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from local.processes import PARENT_VARIABLE, lifeline, spawn, stop


class Service(ABC):
    """A process of this machine with its log."""

    name: str

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Also the id of its process group; None if it is not started."""
        return None if self._process is None else self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs and before it is started."""
        return None if self._process is None else self._process.poll()

    @abstractmethod
    def start(self) -> object: ...

    @abstractmethod
    def stop(self) -> None: ...


class Program(Service):
    """A Python program that calls exit_with_parent(), or is run by local.processes, which does."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        grace: float,
        inherit: Sequence[int] = (),
    ) -> None:
        super().__init__(log)
        self.name = name
        self._command = command
        self._environment = environment
        self._grace = grace
        self._inherit = inherit

    def start(self) -> None:
        self.stop()  # what a leader that died left of its group
        self._process = spawn(
            self._command,
            log=self.log,
            environment={**self._environment, PARENT_VARIABLE: str(lifeline()), "PYTHONUNBUFFERED": "1"},
            inherit=[lifeline(), *self._inherit],
        )

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process, grace=self._grace)
        self._process = None
