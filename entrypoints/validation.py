"""What pydantic finds wrong with a value, in our words: a library's may change, and may quote the value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def explanation(error: Mapping[str, Any]) -> str:
    """The rest of a sentence that begins with the name of the value, such as "must be a whole number"."""
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return "is required"
        case "value_error":
            return str(context["error"])
        case "literal_error" | "enum":
            return f"must be {context['expected']}"
        case "string_type":
            return "must be a string"
        case "bool_type":
            return "must be true or false"
        case "string_too_long" | "too_long":
            return f"must have at most {context['max_length']} characters"
        case "string_too_short" | "too_short":
            return f"must have at least {context['min_length']} characters"
        case "int_parsing" | "int_type" | "int_from_float":
            return "must be a whole number"
        case "float_parsing" | "finite_number":
            return "must be a number"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            words = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
            return "must be " + next(f"{word} {context[key]}" for key, word in words.items() if key in context)
        case "uuid_parsing" | "uuid_type":
            return "must be a UUID"
        case "string_unicode":
            return "must be valid Unicode"
        case _:
            return "is not valid"
