"""JavaScript and TypeScript clients: `make test-clients`, which needs node and npm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from entrypoints.http.server.app import api_document
from tests.integration.test_documents import BASE_URL, CLIENT_GUIDE, code_blocks
from tests.support.patience import PROCESS_HANG
from tests.support.processes import whole_product
from tests.vendor_tools.conftest import Installed

GENERATOR, TYPESCRIPT = "openapi-typescript@7.13.0", "typescript@5.9.3"

USE = """
import type { components, operations, paths } from "./api";

type Message = components["schemas"]["Message"];
type Send = paths["/chatroom/{chatroomId}/message"]["post"];

const body: Send["requestBody"]["content"]["application/json"] = { input: "Why?" };
const ids: Send["parameters"]["path"] = { chatroomId: "…" };
export const asked = { body, ids };

export function left(reply: Send["responses"][202]["content"]["application/json"]): number {
  return reply.remainingMessages === "unlimited" ? Infinity : reply.remainingMessages;
}

export function text(message: Message): string {
  const status: "queued" | "generating" | "completed" | "failed" | "cancelled" | "blocked" = message.status;
  return message.response ?? message.error?.detail ?? status;
}

export type Refusal = operations["send_message"]["responses"][403]["content"]["application/problem+json"]["code"];
const named: paths["/chatroom"]["post"]["requestBody"]["content"]["application/json"] = { name: "Physics" };
export const room = named;
// @ts-expect-error what is required must be given
export const wrong: components["schemas"]["SignUpBody"] = { mobile: "+919876543210" };
"""


@pytest.fixture(scope="module")
def product() -> Iterator[str]:
    """An API whose streams end before any reply does, so that its clients must reconnect."""
    with whole_product(STREAM_SECONDS="0.2") as url:
        yield url


def test_openapi_typescript_makes_types_without_a_warning(installed: Installed, tmp_path: Path) -> None:
    tools = installed(GENERATOR, TYPESCRIPT)
    (tmp_path / "openapi.json").write_text(json.dumps(api_document()))
    (tmp_path / "use.ts").write_text(USE)
    made = _run(tmp_path, tools / "openapi-typescript", "openapi.json", "-o", "api.d.ts")
    assert len(made.splitlines()) == 2, f"more than its greeting and the file's name:\n{made}"
    _run(tmp_path, tools / "tsc", "--strict", "--noEmit", "--target", "es2022", "use.ts")


def test_a_typed_client_may_leave_out_what_is_optional(installed: Installed, tmp_path: Path) -> None:
    """Of every request, without a flag to the generator: a body of what is required and nothing else."""
    tools, document = installed(GENERATOR, TYPESCRIPT), api_document()
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    lines = ['import type { paths } from "./api";']
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is None or "$ref" not in content["schema"]:
                continue
            schema = document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
            body = {name: _example(schema["properties"][name]) for name in schema.get("required", ())}
            name = operation["operationId"]
            body_of = f'NonNullable<paths["{path}"]["{method}"]["requestBody"]>'
            lines += [
                f'type {name} = {body_of}["content"]["application/json"];',
                f"export const a_{name}: {name} = {json.dumps(body)};",
            ]
    assert sum(line.startswith("export") for line in lines) >= 12
    (tmp_path / "use.ts").write_text("\n".join(lines))
    _run(tmp_path, tools / "openapi-typescript", "openapi.json", "-o", "api.d.ts")
    _run(tmp_path, tools / "tsc", "--strict", "--noEmit", "--target", "es2022", "use.ts")


def _example(schema: dict[str, Any]) -> Any:
    return schema["examples"][0]


def test_the_client_guides_javascript_does_what_it_says(product: str, tmp_path: Path) -> None:
    node = shutil.which("node")
    assert node, "node is needed"
    program = code_blocks(CLIENT_GUIDE, "js")
    assert BASE_URL in program
    (tmp_path / "guide.mjs").write_text(program.replace(BASE_URL, product))
    assert "Why is the sky blue?" in _run(tmp_path, Path(node), "guide.mjs"), "which the stand-in repeats"


def _run(folder: Path, *command: Path | str) -> str:
    """All that it says; it must succeed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PROCESS_HANG,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
