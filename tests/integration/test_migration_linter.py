"""The linter of migrations finds what would stop a running service."""

from __future__ import annotations

from pathlib import Path

import pytest
from aerich.utils import import_py_file

from adapters.postgres.migrate import Version, versions
from adapters.postgres.steps import Recorder
from tests.migrations import UNLINTED, number, problems
from tests.migrations.concurrently import rewrite

STEPS = "from adapters.postgres.steps import build_index, in_batches, locked"


async def rules(tmp_path: Path, body: str, *, in_transaction: bool = True, comment: str = "") -> set[str]:
    file = tmp_path / "99_next.py"
    file.write_text(f"{STEPS}\n{comment}\nRUN_IN_TRANSACTION = {in_transaction}\nasync def upgrade(db):\n    {body}\n")
    return {problem.rule for problem in await problems(Version(file.name, import_py_file(file)))}


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ('CREATE INDEX "i" ON "messages" ("input")', "require-concurrent-index-creation"),
        ('ALTER TABLE "messages" ADD "x" UUID DEFAULT gen_random_uuid()', "adding-field-with-default"),
        ('ALTER TABLE "messages" ADD "x" INT NOT NULL', "adding-required-field"),
        ('ALTER TABLE "messages" ALTER "input" SET NOT NULL', "adding-not-nullable-field"),
        ('ALTER TABLE "messages" ALTER "attempt" TYPE BIGINT', "changing-column-type"),
        ('ALTER TABLE "messages" ADD CONSTRAINT "c" CHECK ("attempt" > 0)', "constraint-missing-not-valid"),
        ('ALTER TABLE "messages" ADD UNIQUE ("input")', "disallowed-unique-constraint"),
        ('ALTER TABLE "messages" RENAME "input" TO "text"', "renaming-column"),
        ('ALTER TABLE "messages" DROP COLUMN "input"', "ban-drop-column"),
        ('CREATE INDEX CONCURRENTLY "i" ON "messages" ("id")', "concurrently-in-transaction"),
        ('UPDATE "messages" SET "input" = NULL', "rows-in-one-go"),
        ('ALTER TABLE "messages" ADD "x" INT; UPDATE "messages" SET "x" = 1', "rows-under-lock"),
    ],
)
async def test_what_is_dangerous(tmp_path: Path, sql: str, rule: str) -> None:
    assert rule in await rules(tmp_path, f"return {sql!r}")
    assert rule not in await rules(tmp_path, f"return {sql!r}", comment=f"# lint: allow {rule} - the table is empty")
    assert rule in await rules(tmp_path, f"return {sql!r}", comment=f"# lint: allow {rule}"), "without a reason"


@pytest.mark.parametrize(
    "sql",
    [
        'ALTER TABLE "messages" ADD "x" INT',
        'ALTER TABLE "messages" ADD "x" INT NOT NULL DEFAULT 0',
        'CREATE TABLE "t" ("id" INT PRIMARY KEY); CREATE INDEX "i" ON "t" ("id"); INSERT INTO "t" VALUES (1)',
        'ALTER TABLE "messages" ADD CONSTRAINT "c" CHECK ("attempt" > 0) NOT VALID',
    ],
)
async def test_what_is_not(tmp_path: Path, sql: str) -> None:
    assert await rules(tmp_path, f"return {sql!r}") == set()


async def test_what_the_steps_make(tmp_path: Path) -> None:
    body = """await build_index(db, "i", '"messages" ("input")')
    await in_batches(db, "DELETE FROM messages WHERE id IN (SELECT id FROM messages WHERE false LIMIT 100)")
    await locked(db, "ALTER TABLE messages ADD extra INT")
    return ''"""
    assert await rules(tmp_path, body, in_transaction=False) == set()
    whole = "await in_batches(db, 'DELETE FROM messages WHERE false')\n    return ''"
    assert await rules(tmp_path, whole, in_transaction=False) == {"rows-in-one-go"}


async def test_todays_migrations_pass() -> None:
    assert [found for version in versions() if number(version) > UNLINTED for found in await problems(version)] == []


WRITTEN = """from tortoise import BaseDBAsyncClient

RUN_IN_TRANSACTION = True


async def upgrade(db: BaseDBAsyncClient) -> str:
    return \"\"\"
        {upgrade}\"\"\"


async def downgrade(db: BaseDBAsyncClient) -> str:
    return \"\"\"
        {downgrade}\"\"\"


MODELS_STATE = (
    "state"
)
"""
INDEX = 'CREATE INDEX IF NOT EXISTS "i" ON "messages" ("input", "id");'
COLUMN = 'ALTER TABLE "messages" ADD "extra" INT;'
TABLE = 'CREATE TABLE IF NOT EXISTS "new" ("id" INT);\nCREATE INDEX IF NOT EXISTS "j" ON "new" ("id");'


@pytest.mark.parametrize(
    ("upgrade", "downgrade", "files"),
    [
        (INDEX, 'DROP INDEX IF EXISTS "i";', {"9_next.py": False}),
        (
            f"{COLUMN}\n        {INDEX}",
            'DROP INDEX IF EXISTS "i";\n        ALTER TABLE "messages" DROP COLUMN "extra";',
            {"9_next.py": True, "10_next_indexes.py": False},
        ),
        (TABLE, 'DROP TABLE IF EXISTS "new";', {"9_next.py": True}),
    ],
    ids=["an index", "a column and an index", "a table with its index"],
)
async def test_what_is_written_passes(tmp_path: Path, upgrade: str, downgrade: str, files: dict[str, bool]) -> None:
    first = tmp_path / "models" / "9_next.py"
    first.parent.mkdir()
    first.write_text(WRITTEN.format(upgrade=upgrade, downgrade=downgrade))
    rewrite(first)
    assert {version.name for version in versions(str(tmp_path))} == set(files)
    for name, in_transaction in files.items():
        version = Version(name, import_py_file(first.with_name(name)))
        assert version.in_transaction is in_transaction
        assert await problems(version) == []
        assert version.module.MODELS_STATE == "state"
        assert (await version.module.downgrade(Recorder())).strip()
    made = [
        statement
        for name in files
        for statement in await Version(name, import_py_file(first.with_name(name))).statements()
    ]
    assert 'CREATE INDEX CONCURRENTLY "i" ON "messages" ("input", "id")' in made or "new" in upgrade
