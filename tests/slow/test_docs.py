"""What pages and messages lead to is there: files they link to, commands and options they name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pilotlight.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "loadtests" / "bench" / "RESULTS.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
PACKAGES = ("pilotlight", "router", "activator", "runtime", "snapshots")
WHOLE = typer.main.get_command(app)
FREE = {"run", "chat"}  # their last argument is a person's sentence


def named(page: Path) -> Iterator[str]:
    """Command lines of a page: its code, in a line or in blocks."""
    text = page.read_text()
    for block in re.findall(r"^```\w*\n(.*?)^```|^((?:    .*\n)+)", text, re.M | re.S):
        for line in "".join(block).replace("\\\n", " ").splitlines():
            yield from re.findall(r"^(?:\$ )?\s*(?:eval \"\$\()?(pilotlight [^#|)]*)", line)
    for span in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
        yield from re.findall(r"^(pilotlight [a-z].*)$", span)


def said_in_code() -> Iterator[tuple[str, str]]:
    """(place, command line): what messages tell people to type. A value that is filled in is a word."""
    for file in [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]:
        source = file.read_text()
        for node in ast.walk(ast.parse(source)) if "`pilotlight " in source else ():
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            else:
                continue
            for line in re.findall(r"`(pilotlight [a-z][^`\n]*)`", text):
                yield f"{file.relative_to(ROOT)}:{node.lineno}", line


def fault(line: str) -> str:
    """What is wrong with a command line; "" where nothing is."""
    words = line.replace("…", " ").replace("|", " | ").split()[1:]
    command: Any = WHOLE
    path = ["pilotlight"]
    while words and (children := getattr(command, "commands", {})) and not words[0].startswith(("-", "[")):
        alternatives = words[0].strip(",;.").split("|") if "|" in words[0] else [words[0].strip(",;.")]
        if alternatives[0] not in children and path[-1] == "usage":
            break
        if alternatives[0] not in children:
            return f"{' '.join(path)} has no command {words[0]}"
        path.append(alternatives[0])
        command = children[words.pop(0).strip(",;.").split("|")[0]]
        if words[:1] == ["|"]:
            return ""
    if path == ["pilotlight", "usage"]:  # short for its `show`
        command = command.commands["show"]
    options = {option for parameter in command.params for option in parameter.opts} | {"-h", "--help"}
    if path[-1] in FREE:
        return ""
    unknown = [word for word in words if re.match(r"--?[a-z]", word) and word.split("=")[0].strip(",;.") not in options]
    return f"{' '.join(path)} has no option {', '.join(unknown)}" if unknown else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_leads_to_what_is_there(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()) if "://" not in link]
    assert page.name != "README.md" or len(list(named(page))) > 15
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert {line: told for line in named(page) if (told := fault(line))} == {}


def test_messages_name_commands_there_are() -> None:
    found = list(said_in_code())
    assert len(found) > 40
    assert {place: (line, told) for place, line in found if (told := fault(line))} == {}


def test_every_page_is_reached_from_the_readme() -> None:
    reached, new = set[Path](), [ROOT / "README.md"]
    while new:
        page = new.pop()
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s]+\.md)(?:#[^)]*)?\)", page.read_text())
        new += [file for link in links if "://" not in link and (file := (page.parent / link).resolve()) not in reached]
    assert {page for page in PAGES if page not in reached} == set()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("pilotlight lst", "has no command"),
        ("pilotlight keys make x", "pilotlight keys has no command make"),
        ("pilotlight ls --colour", "has no option --colour"),
        ("pilotlight usage demo --since 1h", ""),
        ("pilotlight deploy NAME --model FOLDER --engine-arg a=b", ""),
    ],
)
def test_what_is_wrong_is_found(line: str, said: str) -> None:
    assert (said in fault(line)) and bool(said) is bool(fault(line))


def test_what_a_page_tells_to_edit_is_there() -> None:
    """Where it names something of a file, that stands there."""
    named = re.findall(r"`(\w+)(?:\.\w+)*` of\s+`([\w/]+\.py)`", (ROOT / "docs" / "contributing.md").read_text())
    assert len(named) > 8
    assert not [(name, file) for name, file in named if not re.search(rf"\b{name}\b", (ROOT / file).read_text())]
