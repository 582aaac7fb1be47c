"""Secrets in files, as orchestrators mount them: NAME_FILE names the file that holds the value of NAME."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

SUFFIX = "_FILE"
_LONGEST = 65_536


def read_secret_files(environment: Mapping[str, str], names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The environment with the values that stand in files, and a line for each file that cannot be used.

    `names` are those of the secrets. White space around a value is not part of it: editors end files with a line break.
    """
    found, lines = dict(environment), list[str]()
    for name in names:
        file = found.pop(name + SUFFIX, "")
        if not file:
            continue
        if found.get(name):
            lines.append(f"{name} and {name + SUFFIX} are both set: remove one.")
            continue
        try:
            found[name] = _text(Path(file))
        except ValueError as error:
            lines.append(f"{name + SUFFIX} names a file that {error}.")
    return found, lines


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(_LONGEST + 1)
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise ValueError("is not text") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL in its name
        raise ValueError("cannot be read") from None
    if len(content) > _LONGEST:
        raise ValueError(f"has more than {_LONGEST} bytes")
    if not text:
        raise ValueError("is empty")
    return text
