"""Migrations are linted: none may lock a table of a running service for long.

squawk knows the locks of every statement; ALSO are rules that it has not. A migration that has a reason to break a rule
names it: `# lint: allow RULE - reason`.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from adapters.postgres.migrate import Version

#: The last one that was written before there was a linter.
UNLINTED = 10
OLDEST_POSTGRES = "14"

#: What others see to, or is a matter of style.
EXCLUDED = (
    "require-lock-timeout",  # `migrate` sets one
    "require-statement-timeout",  # and what is long is in batches
    "prefer-robust-stmts",  # `migrate` goes on after a kill
    "prefer-bigint-over-int",
    "prefer-bigint-over-smallint",
    "prefer-identity",
    "prefer-text-field",
)
_ALLOWED = re.compile(r"# lint: allow ([\w-]+) - \S")
_NEW_TABLE = re.compile(r'CREATE TABLE (?:IF NOT EXISTS )?"?(\w+)', re.IGNORECASE)
_ALTERED = re.compile(r'(?:ALTER|LOCK) TABLE (?:ONLY |IF EXISTS )?"?(\w+)', re.IGNORECASE)
#: Not of a trigger, such as AFTER UPDATE ON.
_REWRITTEN = re.compile(r'(?<!AFTER )(?<!BEFORE )\b(?:UPDATE|DELETE FROM) (?:ONLY )?"?(\w+)', re.IGNORECASE)


class Problem(NamedTuple):
    migration: str
    rule: str
    text: str


def squawk(name: str, sql: str, *, in_transaction: bool) -> Iterator[Problem]:
    done = subprocess.run(
        [
            Path(sys.executable).with_name("squawk"),
            "--reporter=json",
            f"--pg-version={OLDEST_POSTGRES}",
            f"--exclude={','.join(EXCLUDED)}",
            *(["--assume-in-transaction"] if in_transaction else []),
            "--stdin-filepath",
            name,
        ],
        input=sql,
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    for found in json.loads(done.stdout):
        yield Problem(name, found["rule_name"], f"line {found['line'] + 1}: {found['message']}")


def also(name: str, statements: Sequence[str], *, in_transaction: bool) -> Iterator[Problem]:
    """What squawk has no rule for."""
    new: set[str] = set()
    locked: set[str] = set()
    for statement in re.split(r";\s*", "; ".join(statements)):
        new.update(_NEW_TABLE.findall(statement))
        locked.update(set(_ALTERED.findall(statement)) - new)
        if in_transaction and "CONCURRENTLY" in statement.upper():
            yield Problem(name, "concurrently-in-transaction", "Postgres refuses that: RUN_IN_TRANSACTION = False")
        for table in _REWRITTEN.findall(statement):
            if in_transaction and table in locked:
                yield Problem(name, "rows-under-lock", f"{table} is locked while its rows are changed: use in_batches")
            elif in_transaction and table not in new:
                yield Problem(name, "rows-in-one-go", f"the rows of {table} are changed in one go: use in_batches")
            elif not in_transaction and table not in new and "LIMIT" not in statement.upper():
                yield Problem(
                    name, "rows-in-one-go", f"the rows of {table} are changed without a LIMIT: use in_batches"
                )


async def problems(version: Version) -> list[Problem]:
    """Those of a migration that it does not allow itself."""
    statements, text = await version.statements(), inspect.getsource(version.module)
    sql = ";\n".join(statement.rstrip("; \n") for statement in statements) + ";\n"
    allowed = set(_ALLOWED.findall(text))
    found = [
        *squawk(version.name, sql, in_transaction=version.in_transaction),
        *also(version.name, statements, in_transaction=version.in_transaction),
    ]
    return [problem for problem in found if problem.rule not in allowed]


def number(version: Version) -> int:
    return int(version.name.partition("_")[0])
