"""What a caller of Stripe sends: nested keys in a form, and values that are all text."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

from local.stripe.faults import Json, invalid

_KEY = re.compile(r"^([^\[\]]+)((?:\[[^\[\]]*\])*)$")


def decode(*forms: str) -> Json:
    """`a[b][0][c]=1` and `a[]=1` as objects and lists. Raises StripeError for a key that is neither."""
    found: Json = {}
    for form in forms:
        for key, value in parse_qsl(form, keep_blank_values=True):
            match = _KEY.match(key)
            if not match:
                raise invalid(f"Invalid parameter name: {key}", key)
            path = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
            _put(found, path, value, key)
    return {name: _lists(value) for name, value in found.items()}


def _put(into: Json, path: list[str], value: str, key: str) -> None:
    for name in path[:-1]:
        into = into.setdefault(name or str(len(into)), {})
        if not isinstance(into, dict):
            raise invalid(f"Invalid object: {key}", key)
    into[path[-1] or str(len(into))] = value


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(name.isdigit() for name in value):
        return [_lists(value[name]) for name in sorted(value, key=int)]
    return {name: _lists(inner) for name, inner in value.items()}


def text(params: Json, name: str) -> str | None:
    """None when it is missing or empty, which is how a caller unsets it."""
    value = params.get(name)
    if isinstance(value, dict | list):
        raise invalid(f"Invalid string: {name}", name)
    return value or None


def needed(params: Json, name: str) -> str:
    value = text(params, name)
    if value is None:
        raise invalid(f"Missing required param: {name}.", name, "parameter_missing")
    return value


def address(params: Json, name: str) -> str | None:
    value = text(params, name)
    if value and not value.startswith(("http://", "https://")):
        raise invalid("Not a valid URL", name, "url_invalid")
    return value


def number(params: Json, name: str) -> int | None:
    value = text(params, name)
    try:
        return None if value is None else int(value)
    except ValueError:
        raise invalid(f"Invalid integer: {value}", name, "parameter_invalid_integer") from None


def flag(params: Json, name: str) -> bool:
    value = text(params, name) or "false"
    if value not in ("true", "false"):
        raise invalid(f"Invalid boolean: {value}", name)
    return value == "true"


def inner(params: Json, name: str) -> Json:
    value = params.get(name) or {}
    if not isinstance(value, dict):
        raise invalid(f"Invalid object: {name}", name)
    return value


def rows(params: Json, name: str) -> list[Json]:
    value = params.get(name) or []
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise invalid(f"Invalid array: {name}", name)
    return value


def texts(params: Json, name: str) -> list[str]:
    value = params.get(name) or []
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def metadata(params: Json, before: Json | None = None) -> Json:
    """Merged into what there is; an empty value removes its key, an empty `metadata` all of them."""
    if params.get("metadata") == "":
        return {}
    return {name: value for name, value in ((before or {}) | inner(params, "metadata")).items() if value != ""}
