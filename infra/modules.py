"""Writes docs/modules.md: every module of the five packages, room by room, with the first sentence it says of itself.

    python infra/modules.py [--check]

A test runs `--check`, so the page cannot fall behind the code.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "modules.md"
PACKAGES = ("router", "activator", "runtime", "snapshots", "pilotlight")

TOP = """# Modules

Made by `python infra/modules.py` from the modules themselves. [ARCHITECTURE.md](../ARCHITECTURE.md) says how they work together.
"""


def render() -> str:
    rooms: dict[Path, list[str]] = defaultdict(list)
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py"), key=lambda file: (file.parent, file.name)):
            if "migrations" not in file.parts and (line := first_sentence(file)):
                rooms[file.parent.relative_to(ROOT)].append(f"| `{file.name}` | {line} |\n")
    return TOP + "".join(f"\n## {room}/\n\n| module | |\n|---|---|\n" + "".join(lines) for room, lines in rooms.items())


def first_sentence(file: Path) -> str:
    """Of the docstring; empty for an empty module."""
    paragraph = (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).replace("|", "\\|").split(". ")[0].rstrip(".")


if __name__ == "__main__":
    if "--check" in sys.argv:
        current = PAGE.exists() and PAGE.read_text() == render()
        sys.exit(0 if current else "docs/modules.md is behind the code: run python infra/modules.py")
    PAGE.write_text(render())
