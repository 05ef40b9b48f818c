"""Tables at every width: what one copies out of them is there, whole; a pipe gets one line a row; a stranger's bytes
move no cursor.
"""

from __future__ import annotations

import random
import string
from pathlib import Path
from typing import Any

import pytest

from pilotlight.cli.endpoints import rollouts, show
from pilotlight.cli.exit_codes import one_line, printable, say
from pilotlight.cli.keys import keys
from pilotlight.cli.tables import BOLD, RED, Table, cells, width_of_stdout, written
from pilotlight.cli.usage.show import print_usage
from pilotlight.settings import load

KEY_ID, DIGEST, REQUEST = "key_528b9a7513254aca0dbe", "sha256:" + "7db31571" * 8, "01a1fc1d72bd76379792f5d24e066cc7"


def made(*rows: tuple[str, ...], prose: str | None = None, columns: tuple[str, ...] = ("a", "b", "c")) -> Table:
    table = Table(*columns, prose=prose)
    for row in rows:
        table.add_row(*row)
    return table


def test_what_fits_is_one_line_a_row() -> None:
    table = made(("x", "yy", "z"), ("", "y", ""))
    assert table.lines(80) == table.lines(None) == ["a  b   c", "x  yy  z", "   y"]


def test_what_does_not_fit_stands_below_by_its_name_and_empty_cells_not_at_all() -> None:
    table = made(("x" * 10, "y" * 10, "z" * 10), ("x", "", "z"))
    assert table.lines(24) == ["a           b", "x" * 10 + "  " + "y" * 10, "  c " + "z" * 10, "x", "  c z"]
    assert table.lines(12) == ["a", "x" * 10, "  b " + "y" * 10, "  c " + "z" * 10, "x", "  c z"]


def test_only_prose_is_broken_and_only_at_blanks() -> None:
    table = made(("x", "one two three four five six seven"), columns=("a",), prose="said")
    assert table.lines(34) == ["a  said", "x  one two three four five six", "   seven"]
    assert table.lines(20) == ["a", "x", "  one two three four", "  five six seven"]
    assert made(("x", DIGEST), columns=("a",), prose="said").lines(20)[-1].strip() == DIGEST


@pytest.mark.parametrize("seed", range(50))
def test_no_cell_is_ever_lost_cut_or_broken(seed: int) -> None:
    chance = random.Random(seed)
    columns = tuple(f"c{n}" for n in range(chance.randint(1, 9)))
    rows = [
        tuple("".join(chance.choices(string.ascii_letters, k=chance.randint(0, 70))) for _ in columns)
        for _ in range(chance.randint(0, 5))
    ]
    table = made(*rows, columns=columns)
    for width in (1, 20, 40, 80, 120, None):
        lines = table.lines(width)
        words = " ".join(lines).split()
        assert all(cell in words for row in rows for cell in row if cell)
        assert width != 80 or all(cells(line) <= 80 for line in lines)


def test_a_pipe_gets_one_line_a_row(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert width_of_stdout() is None
    print_usage({"rows": [usage_row()]})
    assert len(capsys.readouterr().out.splitlines()) == 2
    monkeypatch.setenv("COLUMNS", "80")
    assert width_of_stdout() == 80
    monkeypatch.setenv("COLUMNS", "wide")
    assert width_of_stdout() is None


def test_a_strangers_bytes_move_no_cursor_and_are_no_markup() -> None:
    assert printable("a\x1b[31mred\x07\u202e\n[/b]\x9b") == "a�[31mred�� [/b]�"
    assert (
        made(("[/red]", "\x1b]0;title\x07", "[bold]"), columns=("a", "b", "c")).lines(None)[1]
        == "[/red]  �]0;title�  [bold]"
    )


def test_wide_characters_take_two_columns() -> None:
    assert made(("日本", "x", ""), ("ab", "y", "")).lines(None)[1:] == ["日本  x", "ab    y"]


def test_colours_do_not_count_as_columns() -> None:
    table = Table("a", "b", paint={"wrong": RED})
    table.add_row("wrong", "x")
    head, row = table.lines(80, colour=True)
    assert head.startswith(BOLD) and row.startswith(RED) and row.endswith("x")
    assert [line.replace(BOLD, "").replace(RED, "").replace("\033[0m", "") for line in (head, row)] == table.lines(80)


def usage_row() -> dict[str, Any]:
    when = "2026-11-21T03:19:13.123456+00:00"
    tokens = {
        "input_tokens": 7,
        "cached_tokens": 0,
        "output_tokens": 46,
        "count_source": "engine",
        "cost": "0.0000191000",
    }
    return {"event_id": REQUEST, "admitted_at": when, "start": "cold", "finish": "complete", "corrects": None} | tokens


def key_row() -> dict[str, Any]:
    made = {"created_at": "2026-11-21T03:19:13+00:00", "expires_at": "2999-11-22T03:19:13+00:00", "revoked_at": None}
    return {
        "key_id": KEY_ID,
        "prefix": "pl_wb",
        "last_four": "so8J",
        "name": "a website of ours",
        "endpoint": "a-long-name-of-an-endpoint",
    } | made


class Told:
    """Stands in for Api: the same answer to every call."""

    url = "https://a-name-of-a-machine.of-a-company.example:8443"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __call__(self, *_: Any, **__: Any) -> Told:
        return self

    def call(self, *_: Any, **__: Any) -> Any:
        return self.answer


def revision_row() -> dict[str, Any]:
    words = "SystemExit: 2 because an argument --max-model-len of the engine was not understood by it at all"
    return {
        "number": 3,
        "state": "failed",
        "created_at": "2026-11-21T03:19:13",
        "created_by": "root (local)",
        "digest": DIGEST,
        "differs": {},
        "failure": words,
    }


@pytest.mark.parametrize("width", [40, 80, 100])
def test_whatever_one_copies_is_whole_in_80_columns(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    settings = load(state_dir=tmp_path)
    monkeypatch.setattr(keys, "Api", Told({"data": [key_row()]}))
    keys.list_keys(settings, "demo", live=False, as_json=False)
    endpoint = {
        "name": "a-long-name-of-an-endpoint",
        "number": 3,
        "task": "generate",
        "digest": DIGEST,
        "min_replicas": 0,
        "max_replicas": 12,
    }
    monkeypatch.setattr(
        show, "Api", Told({"data": [endpoint | {"idle_timeout_seconds": 60.0, "zero": "standby", "slots": 64}]})
    )
    show.show_endpoints(settings, as_json=False)
    print_usage({"rows": [usage_row()]})
    monkeypatch.setattr(rollouts, "Api", Told({"data": [revision_row()]}))
    rollouts.show_revisions(settings, "demo", 20, as_json=False)
    words = capsys.readouterr().out.split()
    url = f"{Told.url}/e/a-long-name-of-an-endpoint/v1"
    assert {KEY_ID, "pl_wb…so8J", "live", REQUEST, url, "7db315717db3", "failed", "0.0000191000"} <= set(words)


def test_a_superseded_revision_is_not_listed_for_ever() -> None:
    def of(number: int, **given: Any) -> dict[str, Any]:
        return {"revision_id": f"rev{number}", "number": number, "replicas": []} | given

    endpoint = {
        "route": [["rev3", 100]],
        "next": "",
        "revisions": [of(1), of(2, replicas=[{}]), of(3), of(4, outcome="failed")],
    }
    assert [each["number"] for each in show.of_interest(endpoint)] == [2, 3, 4]
    assert [each["number"] for each in show.of_interest(endpoint | {"next": "rev1"})] == [1, 2, 3, 4]


def test_a_digest_in_a_list_is_whole() -> None:
    table = Table("digest", "architecture", "dtype", "tensors", "size", "baked", "pinned")
    table.add_row(DIGEST, "LlamaForCausalLM", "bfloat16", "272", "269 MB", "0 B", "pinned")
    assert table.lines(80)[1] == DIGEST


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "true"),
        (0.5, "0.5"),
        ((), "[]"),
        (["a b", "c"], '["a b", "c"]'),
        ({"x": True}, '{"x": true}'),
        ("text", "text"),
    ],
)
def test_a_value_is_shown_as_one_writes_it(value: object, text: str) -> None:
    assert written(value) == text


def test_no_line_that_is_said_moves_a_terminals_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """A file's name, or an engine's word, may be anything."""
    say("left out: \x1b]0;mine\x07.md\nand more")
    print(one_line("\x1b[2J is a symlink\r out"))
    told = capsys.readouterr()
    assert told.err == "left out: �]0;mine�.md\nand more\n"
    assert told.out == "�[2J is a symlink out\n"
