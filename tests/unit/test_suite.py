"""What holds of all tests, so that they pass beside each other and on a slow machine."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILES = sorted(
    path
    for folder in ("", "chaos", "contracts", "e2e", "integration", "security", "support", "unit")
    for path in (TESTS / folder).glob("*.py")
    if path.name not in ("__main__.py", "patience.py")
)


def own_bounds(tree: ast.AST) -> list[int]:
    """Lines that bound a hang with a literal number. Below a second it does not bound a hang."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="timeout" | "wait_for"),
                args=[*_, ast.Constant(value=int() | float() as seconds)],
            ):
                found += [node.lineno] * (seconds >= 1)
            case ast.BinOp(left=ast.Call(func=ast.Attribute(attr="monotonic")), op=ast.Add(), right=ast.Constant()):
                found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(TESTS)) for path in FILES])
def test_a_file(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert own_bounds(tree) == [], "use HANG or PROCESS_HANG of tests/support/patience.py"
    imported = {
        (node.module, name.name) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names
    }
    assert ("local.files", "free_port") not in imported, "use free_port of tests/support/ports.py"
