"""docker-compose.yml as Docker Compose reads it: variables filled in, anchors merged, services in order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from tests.support.processes import ROOT

_VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?:(:[?-])([^}]*))?\}")


def services(dotenv: str) -> dict[str, dict[str, Any]]:
    """By name, each with the complete environment of its process, in an order in which they can start."""
    variables = dict(re.findall(r"(?m)^([A-Z_]+)=(.*)$", dotenv))
    found: dict[str, dict[str, Any]] = _filled(yaml.safe_load((ROOT / "docker-compose.yml").read_text()), variables)[
        "services"
    ]
    for service in found.values():
        if service.get("env_file") == ".env":
            service["environment"] = variables | service["environment"]
    ordered: dict[str, dict[str, Any]] = {}
    while len(ordered) < len(found):
        ready = {
            name: service
            for name, service in found.items()
            if name not in ordered and set(service.get("depends_on", ())) <= ordered.keys()
        }
        assert ready, "services wait for each other"
        ordered |= ready
    return ordered


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, variables) for item in value]
    return _VARIABLE.sub(lambda found: _variable(found, variables), value) if isinstance(value, str) else value


def _variable(found: re.Match[str], variables: Mapping[str, str]) -> str:
    name, kind, text = found.groups()
    if name is None:
        return "$"
    value = variables.get(name, "")
    assert value or kind != ":?", f"{name}: {text}"
    return value or (text if kind == ":-" else "")
