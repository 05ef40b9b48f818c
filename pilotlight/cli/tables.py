"""Tables as the command line prints them: one line a row where they fit, else a row's last columns below it, by name.

What must survive is what one copies out of them (ids, keys, digests, URLs): no cell is ever cut, and none is broken but
prose. Where stdout is not a terminal, a row is always one line, for `grep` and `awk`; COLUMNS says another width. What
is shown may come from strangers (labels, an engine's words), so a terminal never gets a control character of theirs.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping

from pilotlight.cli.exit_codes import printable, say

GAP, INDENT = "  ", "  "
LEAST_PROSE = 30  # columns of a terminal that prose needs to stand beside the rest
BOLD, RED, GREEN, PLAIN = "\033[1m", "\033[31m", "\033[32m", "\033[0m"


class Table:
    """`prose`: the last column, whose text may be broken at blanks. `paint`: colours of cells, by their text."""

    def __init__(self, *columns: str, prose: str | None = None, paint: Mapping[str, str] | None = None) -> None:
        self._columns = (*columns, *(() if prose is None else (prose,)))
        self._prose = prose is not None
        self._paint = paint or {}
        self._rows: list[tuple[str, ...]] = []

    @property
    def row_count(self) -> int:
        return len(self._rows)

    def add_row(self, *cells: str) -> None:
        given = tuple(printable(cell) for cell in cells)
        self._rows.append(given + ("",) * (len(self._columns) - len(given)))

    def lines(self, width: int | None, *, colour: bool = False) -> list[str]:
        """`width`: columns of the terminal; None: as wide as it takes. Pure."""
        widths = [max(map(cells, column)) for column in zip(self._columns, *self._rows, strict=True)]
        beside = self._beside(widths, width)
        head = self._line(self._columns, widths[:beside], width, [BOLD if colour else ""] * len(widths))
        below = [self._below(row, beside, width) for row in self._rows]
        return [
            *head,
            *(
                line
                for row, rest in zip(self._rows, below, strict=True)
                for line in (*self._row(row, widths, beside, width, colour), *rest)
            ),
        ]

    def _beside(self, widths: list[int], width: int | None) -> int:
        """How many columns stand beside each other; the others stand below."""
        count = len(widths)
        if width is None or sum(widths) + len(GAP) * (count - 1) <= width:
            return count
        if self._prose and sum(widths[:-1]) + len(GAP) * (count - 1) + LEAST_PROSE <= width:
            return count
        while count > 1 and sum(widths[:count]) + len(GAP) * (count - 1) > width:
            count -= 1
        return count

    def _row(self, row: tuple[str, ...], widths: list[int], beside: int, width: int | None, colour: bool) -> list[str]:
        painted = [self._paint.get(cell, "") if colour else "" for cell in row]
        return self._line(row, widths[:beside], width, painted)

    def _line(self, row: tuple[str, ...], widths: list[int], width: int | None, paint: list[str]) -> list[str]:
        """One line, or several where its prose is broken."""
        prose = self._prose and len(widths) == len(self._columns)
        begin = sum(widths[:-1]) + len(GAP) * (len(widths) - 1)
        broken = _wrapped(row[len(widths) - 1], None if width is None else width - begin) if prose else []
        shown = [*row[: len(widths) - 1], broken[0] if broken else row[len(widths) - 1]]
        text = GAP.join(_painted(cell, paint[at]) + " " * (widths[at] - cells(cell)) for at, cell in enumerate(shown))
        return [text.rstrip(), *(" " * begin + rest for rest in broken[1:])]

    def _below(self, row: tuple[str, ...], beside: int, width: int | None) -> list[str]:
        """The columns that found no place, each with its name; two of a line where both fit."""
        lines = list[str]()
        for at in range(beside, len(row)):
            if not row[at].strip():
                continue
            item = f"{self._columns[at]} {row[at]}".strip()
            if self._prose and at == len(row) - 1:  # it speaks for itself
                lines += [INDENT + part for part in _wrapped(row[at], width and width - len(INDENT))]
            elif lines and width and cells(lines[-1]) + len(GAP) + cells(item) <= width:
                lines[-1] += GAP + item
            else:
                lines.append(INDENT + item)
        return lines


def show(table: Table, *, nothing: str = "") -> None:
    """To stdout. Where it has no row `nothing` is told instead, on stderr: what is not there, and how one gets it."""
    if nothing and not table.row_count:
        say(nothing)
        return
    for line in table.lines(width_of_stdout(), colour=in_colour()):
        print(line)


def show_text(text: str, *, alarm: bool = False) -> None:
    """A sentence to stdout, broken at blanks where the terminal is narrow."""
    for line in _wrapped(printable(text), width_of_stdout()) or [""]:
        print(_painted(line, RED if alarm and in_colour() else ""))


def width_of_stdout() -> int | None:
    """None: no terminal, and nobody has said another width."""
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said):
        return int(said)
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def in_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def written(value: object) -> str:
    """A field's value as one writes it in a TOML file, text without its quotes; – for none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple | set | frozenset):
        return json.dumps([str(each) for each in value], ensure_ascii=False)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def cells(text: str) -> int:
    """Columns of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _wrapped(text: str, width: int | None) -> list[str]:
    if width is None:
        return [text]
    return textwrap.wrap(text, max(width, 1), break_long_words=False, break_on_hyphens=False)


def _painted(text: str, colour: str) -> str:
    return f"{colour}{text}{PLAIN}" if colour and text else text


def joined(parts: Iterable[str], between: str = "; ") -> str:
    """Those that are not empty."""
    return between.join(part for part in parts if part)
