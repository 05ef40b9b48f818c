"""Reads the statements of a `.sql` file: each begins with `-- name: NAME` and is described in the comment lines below
it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def statements(subject: str) -> dict[str, str]:
    """The statements of `SUBJECT.sql` by name. Raises FileNotFoundError."""
    found: dict[str, list[str]] = {}
    for line in Path(__file__).with_name(f"{subject}.sql").read_text().splitlines():
        if line.startswith("-- name:"):
            found[line.removeprefix("-- name:").strip()] = lines = []
        elif found:
            lines.append(line)
    return {name: "\n".join(text).strip() for name, text in found.items()}
