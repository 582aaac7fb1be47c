"""/docs: the OpenAPI document as one page, without scripts and external resources."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from entrypoints.http.documents.openapi_examples import Schema, example, not_null, resolve

_FOLDER = Path(__file__).parent
_STYLE = (_FOLDER / "docs_page.css").read_text()
_PAGE = Template((_FOLDER / "docs_page.html").read_text())
#: For the page's Content-Security-Policy, which allows only this style.
STYLE_HASH = f"sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}"


def docs_page(document: dict[str, Any]) -> str:
    return _Page(document).html()


class _Page:
    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._calls = [
            (method, path, operation)
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        ]
        self._names = {operation["operationId"] for _, _, operation in self._calls}

    def html(self) -> str:
        info = self._document["info"]
        return _PAGE.substitute(
            style=_STYLE,
            title=escape(info["title"]),
            summary=escape(info["summary"]),
            version=escape(info["version"]),
            contents="".join(map(self._contents, self._document["tags"])),
            introduction=self._text(info["description"]),
            sections="".join(map(self._section, self._document["tags"])),
        )

    def _of(self, tag: dict[str, str]) -> list[tuple[str, str, dict[str, Any]]]:
        return [call for call in self._calls if tag["name"] in call[2]["tags"]]

    def _contents(self, tag: dict[str, str]) -> str:
        links = "".join(
            f'<li><a href="#{operation["operationId"]}">{_method(method)}{escape(_short(path))}</a></li>'
            for method, path, operation in self._of(tag)
        )
        return f"<h2>{escape(tag['name'])}</h2><ul>{links}</ul>"

    def _section(self, tag: dict[str, str]) -> str:
        calls = "".join(self._call(*call) for call in self._of(tag))
        return f"<section><h2>{escape(tag['name'])}</h2>{self._text(tag['description'])}{calls}</section>"

    def _call(self, method: str, path: str, operation: dict[str, Any]) -> str:
        name = operation["operationId"]
        parts = [f"<h3>{_method(method)}<code>{escape(path)}</code></h3>", self._text(operation["summary"])]
        parts.append(self._text(operation.get("description", "")))
        parts.append(
            f'<p class="soft"><code>{name}</code>{" · requires a token" if "security" in operation else ""}</p>'
        )
        if operation["parameters"]:
            rows = (
                (_code(p["name"]), f"{p['in']}, {self._type(p['schema'])}", self._inline(p.get("description", "")))
                for p in operation["parameters"]
            )
            parts.append(f"<h4>Parameters</h4>{_table(('name', 'type', 'meaning'), rows)}")
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            about = self._resolve(schema).get("description", "")
            parts.append(f"<h4>Body</h4>{self._text(about)}{self._fields(schema)}{self._example(schema)}")
        parts += [self._reply(status, reply) for status, reply in operation["responses"].items() if status < "400"]
        parts.append(self._problems(operation["responses"]))
        return f'<article id="{name}">{"".join(parts)}</article>'

    def _reply(self, status: str, reply: dict[str, Any]) -> str:
        parts = [f"<h4>Reply {status}</h4>"]
        if reply["description"] not in ("OK", "Created"):
            parts.append(self._text(reply["description"]))
        for media, content in reply.get("content", {}).items():
            schema = content["schema"]
            if media != "application/json":
                parts.append(f'<p class="soft">{escape(media)}</p>')
            if "example" in content:
                parts.append(_pre(content["example"]))
            elif media == "application/json":
                fields = f"<details><summary>Fields</summary>{self._fields(schema)}</details>"
                parts.append(self._example(schema) + fields)
        if headers := reply.get("headers"):
            names = ", ".join(map(_code, headers))
            parts.append(f'<p class="soft">Headers: {names}</p>')
        return "".join(parts)

    def _problems(self, responses: dict[str, Any]) -> str:
        rows = [
            (status, _code(code), self._inline(meaning))
            for status, reply in responses.items()
            if status >= "400"
            for code, meaning in re.findall(r"(?m)^- `(\w+)`: (.+)$", reply["description"])
        ]
        return f"<h4>Errors</h4>{_table(('status', 'code', 'meaning'), rows)}" if rows else ""

    def _fields(self, schema: Schema) -> str:
        rows = [
            (
                _code(name) + ("" if required else ' <span class="soft">optional</span>'),
                self._type(part),
                self._inline(self._about(part)),
            )
            for name, part, required in self._flattened(schema, "")
        ]
        return _table(("field", "type", "meaning"), rows)

    def _flattened(self, schema: Schema, prefix: str) -> Iterator[tuple[str, Schema, bool]]:
        """Every nested field by its path: data.id, data[].id."""
        whole = self._resolve(schema)
        for name, part in whole.get("properties", {}).items():
            yield f"{prefix}{name}", part, name in whole.get("required", ()) or "const" in part
            inner = self._resolve(not_null(part))
            if "items" in inner:
                yield from self._flattened(inner["items"], f"{prefix}{name}[].")
            else:
                yield from self._flattened(inner, f"{prefix}{name}.")

    def _about(self, schema: Schema) -> str:
        return str(schema.get("description") or self._resolve(not_null(schema)).get("description", ""))

    def _type(self, schema: Schema) -> str:
        """In words."""
        if "anyOf" in schema:
            return " or ".join(self._type(part) for part in schema["anyOf"])
        found = self._resolve(schema)
        if "const" in found:
            return _code(json.dumps(found["const"]))
        if "enum" in found:
            return "one of " + ", ".join(_code(str(value)) for value in found["enum"])
        words = {
            ("string", "uuid"): "UUID",
            ("string", "date-time"): "time",
            ("integer", None): "whole number",
            ("boolean", None): "true or false",
        }
        kind: str = found.get("type", "anything")
        text: str = words.get((kind, found.get("format")), kind)
        if kind == "array":
            text = f"list of {self._type(found['items'])}s"
        for low, high, unit in (("minLength", "maxLength", " characters"), ("minimum", "maximum", "")):
            if high in found:
                at_least = f"{found[low]:,} to " if low in found else "at most "
                text += f", {at_least}{found[high]:,}{unit}"
        return f"{text}, {_code(json.dumps(found['default']))} if omitted" if "default" in found else text

    def _example(self, schema: Schema) -> str:
        return _pre(json.dumps(example(self._document, schema), indent=2, ensure_ascii=False))

    def _resolve(self, schema: Schema) -> Schema:
        return resolve(self._document, schema)

    def _text(self, markdown: str) -> str:
        return "".join(f"<p>{self._inline(paragraph)}</p>" for paragraph in markdown.split("\n\n") if paragraph)

    def _inline(self, markdown: str) -> str:
        """The subset of Markdown in our descriptions; names of calls become links."""
        bold = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(markdown, quote=False))
        return re.sub(r"`([^`]+)`", self._linked, bold)

    def _linked(self, name: re.Match[str]) -> str:
        code = f"<code>{name[1]}</code>"
        return f'<a href="#{name[1]}">{code}</a>' if name[1] in self._names else code


def _method(method: str) -> str:
    return f'<span class="method {method}">{method.upper()}</span> '


def _short(path: str) -> str:
    return re.sub(r"{\w+}", "…", path)


def _code(text: str) -> str:
    return f"<code>{escape(text, quote=False)}</code>"


def _pre(text: str) -> str:
    # Focusable, so that it can be scrolled by the keyboard.
    return f'<pre tabindex="0">{escape(text, quote=False)}</pre>'


def _table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
