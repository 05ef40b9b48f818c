"""The table of client programs, and how what they say is read; whether they work says `make clients`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.clients.page import missing_row, render, row, rows_of
from tests.clients.table import FOLDER, PAGE, PROGRAMS, Program
from tests.clients.trial import Place, attempt, variables

PLACE = Place("https://127.0.0.1:1", Path("/ca.pem"), "pl_key", "pl_other")
PROGRAM = Program("a program", "python", ("thing==1.2",), "thing.py", "`URL`")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_every_program_is_pinned_and_has_its_script(program: Program) -> None:
    assert (FOLDER / program.script.split()[0]).is_file()
    assert all(re.fullmatch(r"[@a-zA-Z0-9._/\[\]-]+?(==|@)[0-9][0-9.]*", package) for package in program.packages)


def test_every_script_is_some_programs() -> None:
    scripts = {program.script.split()[0] for program in PROGRAMS}
    assert {file.name for file in FOLDER.iterdir() if file.is_file()} - {
        "trying.py",
        "trying.mjs",
        "Ask.java",
    } == scripts


def test_the_page_has_every_program() -> None:
    page = PAGE.read_text()
    assert [program.name for program in PROGRAMS if f"| {program.name} | {program.version} |" not in page] == []


def test_a_program_is_told_of_our_authority_and_gets_nothing_of_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://elsewhere")
    given = variables(PROGRAM, PLACE, "/home")
    assert (given["SSL_CERT_FILE"], given["OPENAI_API_KEY"], given["HOME"]) == ("/ca.pem", "pl_key", "/home")
    assert "HTTPS_PROXY" not in given


@pytest.mark.parametrize(
    ("script", "tried", "failed"),
    [
        ('print(\'talk\'); print(\'{"tried": "chat", "failed": ""}\')', ("chat",), {}),
        ('print(\'{"tried": "chat", "failed": "no"}\'); raise SystemExit(1)', ("chat",), {"chat": "no"}),
        ("raise SystemExit('no such module')", (), {"its end": "no such module"}),
    ],
)
def test_what_it_says_is_how_it_went(script: str, tried: tuple[str, ...], failed: dict[str, str]) -> None:
    outcome = attempt(PROGRAM, [sys.executable, "-c", script], PLACE)
    assert (outcome.tried, outcome.failed) == (tried, failed)
    assert outcome.passed == (not failed)
    assert row(outcome).startswith(f"| a program | 1.2 | `SSL_CERT_FILE` | `URL` | {', '.join(tried)} | ")


def test_a_program_that_is_tried_again_changes_its_own_row_only() -> None:
    other = Program("another", "node", ("it@3",), "it.mjs", "`URL`")
    said = {
        "a program": missing_row(PROGRAM, "no | such\nindex"),
        "another": missing_row(other, "no Node"),
        "gone": missing_row(other, "x"),
    }
    page = render(said, (PROGRAM, other))
    assert rows_of(page) == {name: said[name] for name in ("a program", "another")}
    assert "no \\| such index" in page


def test_one_that_says_nothing_has_not_passed() -> None:
    assert not attempt(PROGRAM, [sys.executable, "-c", ""], PLACE).passed
