"""The linter of migrations finds what would stop a running service."""

from __future__ import annotations

from pathlib import Path

import pytest
from aerich.utils import import_py_file

from adapters.postgres.migrate import Version, versions
from tests.migrations import UNLINTED, number, problems

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
