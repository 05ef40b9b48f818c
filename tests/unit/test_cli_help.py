"""What the command line says of itself: whole sentences at 80 columns, examples that can be typed, and options that
mean what they say.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotlight.cli.main import command as command_line
from pilotlight.installed import is_checkout, remedy
from tests.fakes_cli import ran

TEXT = {"up", "help", "chat", "demo", "logs", "usage export"}  # what they print is no data, or has a form of its own
Command = tuple[str, Any]


def everything(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from everything(child, (*words, name))


ALL = [(" ".join(words), command) for words, command in everything(command_line())]
GROUPS = [each for each in ALL if hasattr(each[1], "commands")]
COMMANDS = [each for each in ALL if not hasattr(each[1], "commands")]


@pytest.mark.parametrize(("words", "group"), GROUPS, ids=lambda each: each if isinstance(each, str) else "")
def test_a_list_of_commands_cuts_no_sentence(words: str, group: Any) -> None:
    shown = ran(*words.split(), "--help", COLUMNS="80").output
    for name in group.commands:
        line = next(line for line in shown.splitlines() if line.split()[:1] == [name])
        assert line.endswith(".") and "..." not in line, line


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=lambda each: each if isinstance(each, str) else "")
def test_a_commands_example_is_its_own_and_can_be_typed(words: str, command: Any) -> None:
    _, example, typed = command.help.partition("Example: ")
    assert example, f"pilotlight {words} has no example"
    parts = shlex.split(typed)
    assert parts[: 1 + len(words.split())] == ["pilotlight", *words.split()]
    named = {option for parameter in command.params for option in parameter.opts}
    given = [part for part in parts if part.startswith("-") and part != "-"]
    assert set(given) <= named, typed


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=lambda each: each if isinstance(each, str) else "")
def test_what_prints_data_prints_json(words: str, command: Any) -> None:
    as_json = any("--json" in parameter.opts for parameter in command.params)
    assert as_json or words in TEXT


def test_waiting_is_told_of_what_is_waited_for() -> None:
    told = {words: ran(*words.split(), "--help").output for words in ("wake", "deploy", "down")}
    assert "revision" not in told["wake"] and "deploy" not in told["wake"] and "the start goes on" in told["wake"]
    assert "the deploy goes on" in told["deploy"]


def test_what_is_missing_is_installed_the_way_pilotlight_was(tmp_path: Path) -> None:
    assert is_checkout() and "`make setup`" in remedy()
    assert "PILOTLIGHT_EXTRA=gpu make setup" in remedy("gpu")
    assert not is_checkout(tmp_path)
    assert "make" not in remedy(root=tmp_path) and "pilotlight[cpu]" in remedy("cpu", root=tmp_path)
