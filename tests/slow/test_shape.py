"""The shape of the code: modules that one reads in one go, and attributes that one finds by their own line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ("pilotlight", "router", "activator", "runtime", "snapshots", "infra", "loadtests")
MOST_LINES = 400
MOST_ATTRIBUTES = 2  # assigned in one statement: of more, neither grep nor a reader sees which is which


def modules() -> Iterator[Path]:
    for folder in FOLDERS:
        yield from sorted((ROOT / folder).rglob("*.py"))


def crowded(source: str) -> list[int]:
    """Lines that assign more attributes at once than they may."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Tuple)
        and sum(isinstance(part, ast.Attribute) for part in target.elts) > MOST_ATTRIBUTES
    ]


def test_what_is_crowded_is_found() -> None:
    assert crowded("self.a, self.b = 1, 2\nself.a, self.b, self.c = 1, 2, 3\na, b, c = 1, 2, 3") == [2]


def test_no_statement_assigns_three_attributes() -> None:
    assert not [f"{file.relative_to(ROOT)}:{line}" for file in modules() for line in crowded(file.read_text())]


def test_no_module_is_longer_than_one_reads_in_one_go() -> None:
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in modules()}
    assert len(lengths) > 450
    assert not {file: length for file, length in lengths.items() if length > MOST_LINES}
