"""docs/reference.md and docs/endpoint.schema.json say what the code says, and nothing in them lacks a meaning."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pilotlight_reference", ROOT / "infra" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_made_from_the_code(reference: ModuleType) -> None:
    behind = [str(file) for file, text in reference.pages().items() if not file.exists() or file.read_text() != text]
    assert not behind, "run python infra/reference.py"


def test_nothing_lacks_a_meaning(reference: ModuleType) -> None:
    assert reference.headers_in_code() == set(reference.HEADERS) | set(reference.INTERNAL)
    assert set(reference.request_headers()) == set(reference.REQUEST_HEADERS)
    assert [kind.__name__ for kind in reference.error_tree() if not reference.meaning(kind)] == []
    assert all(said for _, _, said in reference.admin_routes())
    assert {f"{method} {path}" for method, path, _ in reference.admin_routes()} == set(reference.ADMIN)


def test_headers_are_found_however_they_are_written(reference: ModuleType) -> None:
    assert reference.headers_named('A = b"x-one: %s\\r\\nserver-timing: %d\\r\\n%s"') == {"x-one", "server-timing"}
    assert reference.headers_named('h = {"x-two": 1}; g = f"retry-after: {n}\\r\\n"; h[b"allow"]') == {
        "x-two",
        "retry-after",
        "allow",
    }
    assert (
        reference.headers_named(
            'def f():\n    """Reads x-three: never."""\n    # "x-four"\n    return "not-x-five", "x-"'
        )
        == set()
    )
    page = reference.render()
    assert all(f"| `{name}` |" in page for name in reference.HEADERS)


def test_no_error_or_metric_hides_elsewhere(reference: ModuleType) -> None:
    kinds = {kind.__name__ for kind in reference.error_tree()} | reference.ABSTRACT
    metrics = set()
    for file in [file for part in ("router", "activator", "runtime") for file in (ROOT / part).rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and file.name != "errors.py":
                assert not kinds & {ast.unparse(base).rpartition(".")[2] for base in node.bases}, (
                    f"{node.name} of {file}: into errors.py"
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                metrics |= set(re.findall(r"\bpilotlight_(?:router|activator|ledger|agent)_[a-z_]*[a-z]", node.value))
    assert {family.name for family in reference.families()} == metrics


def test_every_setting_and_metric_is_there(reference: ModuleType) -> None:
    from pilotlight.cli.explain import walk
    from pilotlight.settings import load

    page = reference.render()
    for path, field, _ in walk(load()):
        assert f"`{'.'.join(path)}`" in page and field.description
    for family in reference.families():
        assert f"`{family.name}" in page and family.documentation


def test_every_command_has_its_help_an_example_and_a_meaning_for_each_parameter(reference: ModuleType) -> None:
    import typer

    from pilotlight.cli.main import app

    commands = list(reference.leaves(typer.main.get_command(app), ("pilotlight",)))
    assert len(commands) >= 21
    for path, command in commands:
        assert f"Example: {path[0]} " in command.help, path
        assert " ".join(path[1:2]) in command.help.partition("Example: ")[2], path
        assert all(parameter.help for parameter in command.params if parameter.name != "help"), path


def test_the_schema_is_json_and_refuses_unknown_fields() -> None:
    schema = json.loads((ROOT / "docs" / "endpoint.schema.json").read_text())
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["name"]
