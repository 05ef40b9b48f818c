"""`python -m tests.clients [NAME…]`: every client program, or those named, against an installation of its own. `make
clients`.

What is found goes into docs/clients.md. The exit status is 1 where a program failed.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tests.clients.environments import NotHere, command
from tests.clients.page import missing_row, render, row, rows_of
from tests.clients.table import PAGE, PROGRAMS, Program
from tests.clients.trial import Outcome, Place, attempt
from tests.integration.system import MODEL, System, running

# A model this small would fill its answer with blanks before it said what a schema asks for.
TIGHT = 'structured-outputs-config={"backend":"xgrammar","disable_any_whitespace":true}'
WIDE = 131_072  # tokens
SERVED = 32_768  # of them


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
    with running() as system, tempfile.TemporaryDirectory() as folder:
        place = with_wide(place_of(system), system, Path(folder) / "wide")
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
    return Place(system.api.url, system.paths.ca_cert, key, embed_key, model=MODEL)


def with_wide(place: Place, system: System, folder: Path) -> Place:
    """A third: the demo model as if it had learnt long texts, for programs that send long instructions; what it says
    does not matter.
    """
    shutil.copytree(MODEL, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": WIDE}))
    asked = f"max-model-len={SERVED}"  # on CPU it is 4,096 unless one asks: coding agents begin with 20,000
    arguments = (TIGHT, "enable-auto-tool-choice=true", "tool-call-parser=hermes", asked)
    told = [part for argument in arguments for part in ("--engine-arg", argument)]
    key = system.deploy(
        "wide", "--slots", "32", "--idle-timeout", "600", "--allow", "echo_logprobs", *told, model=folder
    )
    return replace(place, wide_key=key)


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
