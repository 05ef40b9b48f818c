"""Tasks and paths of routes are spelt in one table and nowhere else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from runtime import tasks
from runtime.tasks import KINDS, SCORE

ROOT = Path(__file__).parents[2]
PRODUCT = ("activator", "pilotlight", "router", "runtime", "snapshots")


TABLE = "runtime/tasks.py"


OTHER_THINGS = {  # what is spelt alike and is another thing
    "runtime/loader/completeness.py": {SCORE},  # a layer
    "snapshots/chat_templates.py": {
        tasks.CHAT.public,
        tasks.COMPLETIONS.public,
    },  # told to people; snapshots know no routes
}


def test_no_path_and_no_task_is_spelt_but_in_the_table() -> None:
    modules = [path for package in PRODUCT for path in (ROOT / package).rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix(): spelt(path.read_text()) for path in modules}
    assert found.pop(TABLE) >= set(KINDS)
    assert {name: texts for name, texts in found.items() if texts} == OTHER_THINGS, "read it from runtime/tasks.py"


def test_what_is_spelt_is_found() -> None:
    assert spelt('a = f"{b}/v1/chat/completions"\nif c == "embed":\n    """score"""\n') == {
        "/v1/chat/completions",
        "embed",
    }


def spelt(source: str) -> set[str]:
    """Tasks, and paths of routes in whatever text, but for what is told to readers of the code only."""
    paths = sorted({path for route in tasks.ROUTES for path in (route.public, route.path)}, key=len, reverse=True)
    one = re.compile("|".join(rf"{re.escape(path)}(?![\\w/])" for path in paths))
    tree = ast.parse(source)
    read = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    found = [str(node.value) for node in texts if id(node) not in read]
    return {text for text in found if text in KINDS} | {path for text in found for path in one.findall(text)}
