"""A standby of an embedded Postgres, by streaming replication."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

from local.postgres import MAJOR, EmbeddedPostgres, _binaries, _give
from tests.support.database import execute
from tests.support.patience import HANG


class Standby(EmbeddedPostgres):
    """Made from its primary by pg_basebackup; the primary must run when it is started first."""

    def __init__(self, data_dir: Path, primary: EmbeddedPostgres) -> None:
        super().__init__(data_dir)
        self._primary = primary

    def _make_cluster(self, lock: int) -> None:
        unfinished = self.data_dir / "cluster.new"
        unfinished.mkdir(mode=0o700)
        shutil.copy(self._primary.data_dir / "cluster" / "password", unfinished / "password")
        _give(unfinished, self._run_as)
        self._run(
            [
                _binaries(MAJOR) / "pg_basebackup",
                f"--dbname={self._primary.url}",
                f"--pgdata={unfinished / 'data'}",
                "--write-recovery-conf",
                "--checkpoint=fast",
            ],
            lock,
        )
        unfinished.replace(self._cluster)

    async def has_all(self) -> None:
        """Wait until nothing of the primary is missing."""
        [written] = await execute(self._primary.url, "SELECT pg_current_wal_lsn()::text AS lsn")
        give_up = time.monotonic() + HANG
        while True:
            question = f"SELECT pg_last_wal_replay_lsn() >= '{written['lsn']}'::pg_lsn AS done"
            if (await execute(self.url, question))[0]["done"]:
                return
            assert time.monotonic() < give_up, "the standby does not follow"
            await asyncio.sleep(0.02)

    async def promote(self) -> None:
        assert (await execute(self.url, "SELECT pg_promote() AS done"))[0]["done"]
