"""docs/clients.md: a row for each program, as its last run found it, so that one that is tried again changes its own
row only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.clients.table import NOT_HAD, PROGRAMS, Program
from tests.clients.trial import Outcome

INTRODUCTION = """# Client programs

Made by `make clients`, which runs each of these programs against a running installation; do not edit it.

All that a program needs is the URL, `https://HOST:PORT/e/ENDPOINT/v1`, a key (`pilotlight keys create ENDPOINT`), and to trust the installation:
by the variable in the column CA, which holds the path of `ca.pem` in the state folder, or of `ca-bundle.pem` there, which has the machine's
authorities too. With a certificate of your own ([listeners.md](listeners.md)) that column is not needed.
"""
HEAD = ("program", "version", "CA", "URL and key", "tried", "failed")


_NOT_HAD = """
Not tried, for where this page was made their registries are not to be reached: {}. Clients in the same languages stand in
the table: k6 is Go's, TensorZero's gateway is Rust's, and Java's SDK goes by a client such as Java's own.
"""


def row(outcome: Outcome) -> str:
    program = outcome.program
    failed = "; ".join(f"{tried}: {said}" for tried, said in outcome.failed.items())
    return _line(
        (program.name, program.version, program.trust, program.url, ", ".join(outcome.tried), failed or "nothing")
    )


def missing_row(program: Program, why: str) -> str:
    return _line((program.name, program.version, program.trust, program.url, "nothing", f"it could not be had: {why}"))


def rows_of(page: str) -> dict[str, str]:
    """The rows of a page, by program."""
    return {
        line.split("|")[1].strip(): line
        for line in page.splitlines()
        if line.startswith("| ") and not line.startswith("| program")
    }


def render(rows: Mapping[str, str], programs: Iterable[Program] = PROGRAMS) -> str:
    """Of programs that are tried no more, nothing stays."""
    found = [rows[program.name] for program in programs if program.name in rows]
    return "\n".join([INTRODUCTION, _line(HEAD), "|" + "---|" * len(HEAD), *found, _not_had()])


def _not_had() -> str:
    by_registry: dict[str, list[str]] = {}
    for name, registry in NOT_HAD.items():
        by_registry.setdefault(registry, []).append(name)
    return _NOT_HAD.format("; ".join(f"{', '.join(names)} ({registry})" for registry, names in by_registry.items()))


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"
