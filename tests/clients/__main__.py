"""`python -m tests.clients [NAME…]`: every client program, or those named, against an installation of its own. `make clients`.

What is found goes into docs/clients.md. The exit status is 1 where a program failed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from tests.clients.environments import NotHere, command
from tests.clients.page import missing_row, render, row, rows_of
from tests.clients.table import PAGE, PROGRAMS, Program
from tests.clients.trial import Outcome, Place, attempt
from tests.integration.system import System, running

# A model this small would fill its answer with blanks before it said what a schema asks for.
TIGHT = 'structured-outputs-config={"backend":"xgrammar","disable_any_whitespace":true}'


def main(names: list[str]) -> int:
    chosen = [program for program in PROGRAMS if not names or program.name in names]
    if unknown := set(names) - {program.name for program in PROGRAMS}:
        print(
            f"clients: there is no {', '.join(sorted(unknown))}; there are {', '.join(program.name for program in PROGRAMS)}",
            file=sys.stderr,
        )
        return 2
    rows = rows_of(PAGE.read_text()) if PAGE.exists() else {}
    well = True
    with running() as system:
        place = place_of(system)
        for program in chosen:  # one that takes for ever costs its own row only
            outcomes, missing = try_all([program], place)
            well = well and all(outcome.passed for outcome in outcomes)
            rows[program.name] = missing_row(program, missing[program.name]) if missing else row(outcomes[0])
            PAGE.write_text(render(rows))
    return 0 if well else 1


def place_of(system: System) -> Place:
    """Two endpoints of the demo model."""
    many = ("--slots", "32", "--idle-timeout", "600")
    key = system.deploy("demo", *many, "--engine-arg", TIGHT)
    embed_key = system.deploy("embedder", "--task", "embed", *many)
    return Place(system.api.url, system.paths.ca_cert, key, embed_key)


def try_all(programs: Iterable[Program], place: Place) -> tuple[list[Outcome], dict[str, str]]:
    """How each went, and why those that could not be had could not."""
    outcomes, missing = list[Outcome](), dict[str, str]()
    for program in programs:
        try:
            outcome = attempt(program, command(program), place)
        except NotHere as error:
            missing[program.name] = str(error)
            print(f"{program.name}: not tried, {error}", file=sys.stderr, flush=True)
            continue
        outcomes.append(outcome)
        print(f"{program.name}: {len(outcome.tried)} tried, {len(outcome.failed)} failed", file=sys.stderr, flush=True)
        for tried, said in outcome.failed.items():
            print(f"    {tried}: {said}", file=sys.stderr, flush=True)
    return outcomes, missing


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
