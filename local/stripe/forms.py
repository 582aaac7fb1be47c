"""Form parameters as Stripe reads them: nested keys, and values that are all text."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

from local.standin import Json
from local.stripe.errors import invalid

_KEY = re.compile(r"^([^\[\]]+)((?:\[[^\[\]]*\])*)$")


def decode(*forms: str) -> Json:
    """`a[b][0][c]=1` and `a[]=1` as objects and lists. Raises StripeError for a malformed key."""
    params: Json = {}
    for form in forms:
        for key, value in parse_qsl(form, keep_blank_values=True):
            match = _KEY.match(key)
            if not match:
                raise invalid(f"Invalid parameter name: {key}", key)
            _put(params, [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])], value, key)
    return {name: _with_lists(value) for name, value in params.items()}


def _put(into: Json, path: list[str], value: str, key: str) -> None:
    for name in path[:-1]:
        into = into.setdefault(name or str(len(into)), {})
        if not isinstance(into, dict):
            raise invalid(f"Invalid object: {key}", key)
    into[path[-1] or str(len(into))] = value


def _with_lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(name.isdigit() for name in value):
        return [_with_lists(value[name]) for name in sorted(value, key=int)]
    return {name: _with_lists(inner) for name, inner in value.items()}


def text(params: Json, name: str) -> str | None:
    """None if it is missing or empty; callers unset a value with the empty string."""
    value = params.get(name)
    if isinstance(value, dict | list):
        raise invalid(f"Invalid string: {name}", name)
    return value or None


def required(params: Json, name: str) -> str:
    value = text(params, name)
    if value is None:
        raise invalid(f"Missing required param: {name}.", name, "parameter_missing")
    return value


def url(params: Json, name: str) -> str | None:
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
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def metadata(params: Json) -> Json:
    return {name: value for name, value in inner(params, "metadata").items() if value != ""}
