"""`make migration`: in what aerich has written, indexes on existing tables are built concurrently, in a second file."""

from __future__ import annotations

import re
from pathlib import Path

from adapters.postgres.migrate import LOCATION

_INDEX = re.compile(r'\n? *CREATE (UNIQUE )?INDEX (?:IF NOT EXISTS )?"(\w+)" ON ("(\w+)" [^;]+);', re.IGNORECASE)
_NEW_TABLE = re.compile(r'CREATE TABLE (?:IF NOT EXISTS )?"?(\w+)', re.IGNORECASE)
_STATE = re.compile(r"^MODELS_STATE = .*", re.DOTALL | re.MULTILINE)

FILE = '''"""Indexes of the migration before it, without stopping the service."""

from tortoise import BaseDBAsyncClient

from adapters.postgres.steps import build_index

RUN_IN_TRANSACTION = False  # CONCURRENTLY cannot be in a transaction


async def upgrade(db: BaseDBAsyncClient) -> str:
{builds}
    return ""


async def downgrade(db: BaseDBAsyncClient) -> str:
    return """{drops}"""


{state}'''


def split(text: str) -> tuple[str, str]:
    """The migration without such indexes, and one of these alone. Either is empty if nothing is left for it."""
    upgrade, mark, downgrade = text.partition("async def downgrade")
    new, state = set(_NEW_TABLE.findall(upgrade)), _STATE.search(downgrade)
    indexes = [found for found in _INDEX.finditer(upgrade) if found[4] not in new]
    if not indexes or state is None:
        return text, ""
    builds, drops = [], []
    for found in indexes:
        unique = ", unique=True" if found[1] else ""
        builds.append(f"    await build_index(db, {found[2]!r}, {found[3]!r}{unique})")
        drops.append(f'DROP INDEX IF EXISTS "{found[2]}";')
        upgrade = upgrade.replace(found[0], "")
        downgrade = re.sub(rf'\n? *DROP INDEX (?:IF EXISTS )?"{found[2]}";', "", downgrade)
    rest = upgrade + mark + downgrade if ";" in upgrade else ""
    return rest, FILE.format(builds="\n".join(builds), drops="\n".join(drops), state=state[0])


def rewrite(file: Path) -> None:
    rest, indexes = split(file.read_text())
    if not indexes:
        return
    if not rest:
        file.write_text(indexes)
        return
    number, _, name = file.stem.partition("_")
    file.write_text(rest)
    file.with_name(f"{int(number) + 1}_{name}_indexes.py").write_text(indexes)


if __name__ == "__main__":
    rewrite(max(Path(LOCATION, "models").glob("[0-9]*_*.py"), key=lambda path: int(path.name.partition("_")[0])))
