"""Example values from the schemas of the OpenAPI document."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def resolve(document: dict[str, Any], schema: Schema) -> Schema:
    if "$ref" not in schema:
        return schema
    found: Schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return found


def not_null(schema: Schema) -> Schema:
    found: Schema = next((part for part in schema.get("anyOf", ()) if part.get("type") != "null"), schema)
    return found


def example(document: dict[str, Any], schema: Schema) -> Any:
    if "examples" in schema:
        return schema["examples"][0]
    found = resolve(document, not_null(schema))
    if "examples" in found:
        return found["examples"][0]
    if "properties" in found:
        return {name: example(document, part) for name, part in found["properties"].items()}
    if "items" in found:
        return [example(document, found["items"])]
    return found.get("const", found.get("default", found.get("enum", [found.get("type")])[0]))
