"""One word for one thing: the nouns of ARCHITECTURE.md, plain English beside them, and no word of a private dialect."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("router", "activator", "runtime", "snapshots", "pilotlight")
GONE = {"told", "whole", "hot", "take", "sing", "lives", "climb", "climbs", "spares", "trouble", "scales"}
PUBLIC = {
    "ToldBy",  # a field of the spool
    "told_by",
    "KeyTold",  # a frame
    "whole",  # a field of the table's frame
    "climb",  # a field of the agent's frames
    "take_over",  # these are words of their own
    "take_down",
}
PLAIN = set(
    re.findall(
        r"[a-z]+",
        """
        activator admin agent alive allowed answer app arguments arrival ask asked away bad batch beat body born
        broken bucket call caller catalogue changes check checked checks chunk clock closed code command
        configuration connection context control cors count cycle denied depth depths described disk done down
        draining effects encoding end ended endpoint engine entry environment error event evictable exchange
        exited facts failed failure fetch fetched file finish folder forbidden fork found frame full gate
        handler head header heard hello hub identity incomplete index joined journaled keep key keys kind large
        launcher leadership leading left line links listed load long lost machine maker manifest many memory
        metering method metrics mismatch model name no node not now open operator origin outcome pack parent
        parked part partial paused phase pool price problem process protocol publisher queue ready reason
        reconciler record reference refusal refused rehearsed remove renewals replicas report request require
        room router row runtime scaling selection series server serving set settings ship shipped shut slot slow
        snapshots source start state states status step stop store stored sums table taken takeovers tampered
        task tasks tensor tick timeout timer tokens too transitions unauthorized unavailable unknown unreachable
        unsupported up upload upstream url usage wait wake weight work worker writer wrong
        """,
    )
)


def modules(*packages: str) -> Iterator[tuple[Path, ast.Module]]:
    for package in packages:
        for file in sorted((ROOT / package).rglob("*.py")):
            yield file.relative_to(ROOT), ast.parse(file.read_text())


def words(name: str) -> set[str]:
    return {word for word in re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", name).lower().split("_") if word}


def names(tree: ast.Module) -> Iterator[str]:
    """What is given a name here: functions, classes, arguments, variables and attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def test_no_name_is_of_a_private_dialect() -> None:
    found = {f"{file}: {name}" for file, tree in modules(*PACKAGES) for name in names(tree) if words(name) & GONE}
    assert not {one for one in found if one.split(": ")[1] not in PUBLIC}


def test_no_two_modules_of_a_package_differ_by_a_letter() -> None:
    for package in PACKAGES:
        stems = sorted({file.stem for file, _ in modules(package)} - {"__init__", "__main__", "spool"})  # no pool
        twins = [(a, b) for at, a in enumerate(stems) for b in stems[at + 1 :] if _one_letter(a, b)]
        assert not twins, package


def _one_letter(a: str, b: str) -> bool:
    """Is one the other with a letter more, less or otherwise?"""
    if abs(len(a) - len(b)) > 1 or min(len(a), len(b)) < 4:
        return False
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[at + 1 :] == b[at + 1 :] or a[at:] == b[at + 1 :] or a[at + 1 :] == b[at:]


def test_the_classes_of_the_first_floor_are_words_of_the_table_or_plain_english() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text().split("## Words")[1].split("\n## ")[0]
    table = {word for noun in re.findall(r"^\| ([a-z, ]+) \|", page, re.M) for word in re.split(r"[, ]+", noun)}
    table |= {word for bold in re.findall(r"\*\*([a-z ]+)\*\*", page) for word in bold.split()}
    unknown = {
        f"{file}: {node.name}"
        for file, tree in modules("router", "activator", "runtime", "snapshots")
        if len(file.parts) == 2
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        for word in words(node.name)
        if word not in table | PLAIN and word.rstrip("s") not in table | PLAIN
    }
    assert not unknown
