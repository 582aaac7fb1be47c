"""`python -m tests.language`: check the repository, or the paths given."""

from __future__ import annotations

import sys

from tests.language import Language, check, files


def main() -> int:
    paths = tuple(sys.argv[1:])
    found = check(Language.read(), [name for name in files() if not paths or name.startswith(paths)])
    for finding in found:
        print(finding)
    if found:
        print(f"{len(found)} words to replace; the table is tests/language/words.toml.")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
