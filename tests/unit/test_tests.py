"""How the tests themselves are kept: fakes in one place, no test used by another, units that start no process."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parents[1]
MODULES = {
    file.relative_to(HERE).as_posix(): ast.parse(file.read_text())
    for file in sorted(HERE.rglob("*.py"))
    if "programs" not in file.parts and file.name != "__init__.py"
}
TESTS = {name: tree for name, tree in MODULES.items() if name.rpartition("/")[2].startswith("test_")}
STARTS = re.compile(r"subprocess|multiprocessing|os\.fork|create_subprocess")
FREE = {"unit/test_tests.py"}  # it names what it looks for


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_file_says_in_its_first_sentence_what_it_holds() -> None:
    assert [name for name, tree in MODULES.items() if not (ast.get_docstring(tree) or "").strip()] == []


def test_no_test_is_taken_from_another_test() -> None:
    """What two tests need is a fake or a builder, and lies beside them: `tests/fakes_*.py`, `tests/*.py`."""
    taken = {name: module for name, tree in TESTS.items() for module in imported(tree) if ".test_" in module}
    within = {"acceptance/test_wheel.py", "integration/crowded/test_room.py", "integration/killed/test_stopped.py"}
    assert taken.keys() == within, "these share an installation with the one they take from"


def test_fakes_lie_with_the_fakes() -> None:
    fakes = [
        f"{name}: {node.name}"
        for name, tree in TESTS.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and re.match(r"(Fake|Sim)[A-Z]", node.name)
    ]
    assert fakes == []


def test_a_unit_test_starts_no_process() -> None:
    units = {name for name in TESTS if name.startswith("unit/")} - FREE
    assert [name for name in sorted(units) if STARTS.search((HERE / name).read_text())] == []
