"""Only one module assigns into what is not ours; and a seam that does not fit stops a start, or is left out and
said.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from runtime.engine import seams

RUNTIME = Path(seams.__file__).parents[1]
OURS = ("runtime", "pilotlight", "snapshots")
FILES = [file for file in sorted(RUNTIME.rglob("*.py")) if file.name != "seams.py"]


def foreign_names(tree: ast.AST) -> set[str]:
    """Names that a module's imports, anywhere in it, bind to what is not ours."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {
                name.asname or name.name.split(".")[0] for name in node.names if name.name.split(".")[0] not in OURS
            }
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] not in OURS:
            found |= {name.asname or name.name for name in node.names}
    return found


def root(node: ast.expr) -> str:
    """The name an expression such as `a.b(c).d` begins with; of `type(a).b` it is `a`."""
    while True:
        if isinstance(node, ast.Attribute):
            node = node.value
        elif isinstance(node, ast.Call):
            node = (
                node.args[0] if isinstance(node.func, ast.Name) and node.func.id == "type" and node.args else node.func
            )
        else:
            return node.id if isinstance(node, ast.Name) else ""


def assigned(tree: ast.AST) -> Iterator[ast.expr]:
    """What gets an attribute: by `=`, `del`, `setattr`, `delattr`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr"):
            yield node.args[0]


def intrusions(source: str) -> list[int]:
    tree = ast.parse(source)
    foreign = foreign_names(tree)
    return [whom.lineno for whom in assigned(tree) if root(whom) in foreign]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(RUNTIME)))
def test_nothing_else_assigns_into_what_is_not_ours(file: Path) -> None:
    allowed = {"memory.py": 1}  # how a function of the C library is called, told to ctypes
    assert len(intrusions(file.read_text())) <= allowed.get(file.name, 0), f"{file}: take a seam instead"


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.zeros = 1",
        "import vllm.v1.engine as engine\nengine.core.x = 1",
        "from vllm import LLM\nLLM.generate = 1",
        "def f():\n    from vllm import LLM\n    setattr(LLM, 'x', 1)",
        "from vllm.platforms import current_platform\ntype(current_platform).x = 1",
        "import copy\ndel copy.deepcopy",
    ],
)
def test_the_test_finds_each_way_to_assign(source: str) -> None:
    assert intrusions(source)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that stands for one of the engine's, with two seams in it."""
    module = ModuleType("engine_for_seams")
    module.step = lambda core, steps=1: steps  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    usual = seams.Seam(module.__name__, "step", "core, steps=", True, "", "tests", "nothing is counted")
    names = list(seams.SEAMS)[:2]
    monkeypatch.setitem(seams.SEAMS, names[0], usual)
    monkeypatch.setitem(seams.SEAMS, names[1], replace(usual, must=False))
    monkeypatch.setattr(seams, "_replaced", set())
    monkeypatch.setattr(seams, "uses", seams.Uses())
    return module


def test_a_seam_is_taken_more_than_once_and_counts_its_uses(engine: ModuleType) -> None:
    must = next(iter(seams.SEAMS))
    for _ in range(2):
        assert seams.replace(must, lambda step: lambda core, steps=1: step(core, steps) + 1)
    assert engine.step(None) == 3
    assert seams.uses.counts()[must] == 2 and seams.uses.note() == ""


@pytest.mark.parametrize("broken", [None, lambda core: 1, lambda core, steps: 1, lambda core, steps=1, more=2: 1])
def test_one_that_does_not_fit_stops_the_start_or_is_left_out_and_said(engine: ModuleType, broken: object) -> None:
    must, cheap = list(seams.SEAMS)[:2]
    if broken is None:
        del engine.step
    else:
        engine.step = broken  # type: ignore[attr-defined]
    with pytest.raises(seams.SeamBroken, match=r"engine_for_seams\.step takes .* Without it: nothing is counted"):
        seams.replace(must, lambda step: step)
    assert not seams.replace(cheap, lambda step: step)
    assert seams.uses.note().startswith(f"without: {cheap} (takes (")
    assert getattr(engine, "step", None) is broken, "it is as it was"


def test_the_counts_of_one_fork_are_no_other_forks(engine: ModuleType) -> None:
    must = next(iter(seams.SEAMS))
    seams.uses.used(must)
    standby = seams.uses._counts
    seams.uses.own()
    seams.uses.used(must)
    assert seams.uses.counts()[must] == 2 and standby[0] == 1
