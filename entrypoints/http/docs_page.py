"""/docs: the OpenAPI document as one page, with nothing fetched from anywhere."""

from __future__ import annotations

import json
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 56rem; margin: 2rem auto; padding: 0 1rem; }
details { border: 1px solid color-mix(in srgb, currentColor 20%, transparent); border-radius: .5rem; margin: .5rem 0; }
summary { padding: .6rem .9rem; cursor: pointer; }
details > div { padding: 0 .9rem .9rem; }
code, pre { font: .875em/1.45 ui-monospace, monospace; }
pre { overflow-x: auto; padding: .8rem; border-radius: .4rem; }
pre { background: color-mix(in srgb, currentColor 7%, transparent); }
.method { display: inline-block; min-width: 3.6rem; font-weight: 700; }
.note { opacity: .75; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; }
"""


def docs_page(document: dict[str, Any]) -> str:
    info = document["info"]
    sections = []
    for tag in document["tags"]:
        calls = [
            _call(document, method, path, operation)
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
            if tag["name"] in operation["tags"]
        ]
        sections.append(f"<h2>{escape(tag['name'])}</h2>{''.join(calls)}")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}: API</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} <small class=note>{escape(info['version'])}</small></h1>"
        f"<p>{escape(info['summary'])} {escape(info['description'])}</p>"
        '<p class=note>The same as a document for tools: <a href="/openapi.json">/openapi.json</a></p>'
        f"{''.join(sections)}</body></html>"
    )


def _call(document: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> str:
    parts = []
    if "security" in operation:
        parts.append("<p class=note>Needs <code>Authorization: Bearer &lt;token&gt;</code>.</p>")
    if "description" in operation:
        parts.append(f"<p>{escape(operation['description'])}</p>")
    if operation["parameters"]:
        rows = "".join(
            f"<tr><td><code>{escape(p['name'])}</code></td><td>{p['in']}</td>"
            f"<td>{escape(p.get('description', ''))} <code>{escape(json.dumps(p['schema']))}</code></td></tr>"
            for p in operation["parameters"]
        )
        parts.append(f"<h4>Parameters</h4><table>{rows}</table>")
    if "requestBody" in operation:
        parts.append(f"<h4>Request</h4>{_schema(document, operation['requestBody']['content'])}")
    for status, response in operation["responses"].items():
        if int(status) < 400:
            content = response.get("content")
            parts.append(f"<h4>Reply {status}</h4>{_schema(document, content) if content else ''}")
        else:
            lines = "".join(f"<li>{escape(line[2:])}</li>" for line in response["description"].splitlines())
            parts.append(f"<h4>Problem {status}</h4><ul>{lines}</ul>")
    return (
        f'<details id="{operation["operationId"]}"><summary><span class=method>{method.upper()}</span> '
        f"<code>{escape(path)}</code> {escape(operation['summary'])}</summary><div>{''.join(parts)}</div></details>"
    )


def _schema(document: dict[str, Any], content: dict[str, Any]) -> str:
    schema = next(iter(content.values()))["schema"]
    return f"<pre>{escape(json.dumps(_example(document, schema), indent=2, ensure_ascii=False))}</pre>"


def _example(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """What a value of this schema looks like: its example, or the words for its type."""
    if "$ref" in schema:
        return _example(document, document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
    if "examples" in schema:
        return schema["examples"][0]
    if "anyOf" in schema:
        return _example(document, schema["anyOf"][0])
    if "properties" in schema:
        return {name: _example(document, part) for name, part in schema["properties"].items()}
    if "items" in schema:
        return [_example(document, schema["items"])]
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    return schema.get("const") or schema.get("format") or schema.get("type", "any")
