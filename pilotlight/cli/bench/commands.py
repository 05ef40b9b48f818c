"""`pilotlight bench`: measurements of the running installation."""

from __future__ import annotations

from typing import Annotated

import typer

from pilotlight.cli.options import USAGE, Json, Name, State, print_json, settings_of, stop

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure this installation.\n\nExample: pilotlight bench coldstart demo --wakes 20",
)
RUNGS = ("standby", "parked", "staged")  # as `coldstart.py` knows them
LOADER_ROUNDS = 3


@app.callback()
def bench() -> None:
    """Keeps `coldstart` a command of its own while it is the only one."""


@app.command()
def coldstart(
    name: Name,
    wakes: Annotated[
        int, typer.Option(min=1, help="Wakes from zero; each waits until the endpoint is at zero again.")
    ] = 10,
    rung: Annotated[
        str, typer.Option("--from", help=f"Rung to wake from: {', '.join(RUNGS)} (where no standby is kept).")
    ] = "standby",
    stock: Annotated[
        int, typer.Option("--stock", min=0, help="Starts of stock vLLM between the wakes, on the same snapshot.")
    ] = 0,
    loaders: Annotated[
        bool,
        typer.Option(
            "--loaders",
            help="Also load the snapshot's largest file as others do: safetensors, vLLM, and peers it installs.",
        ),
    ] = False,
    key: Annotated[
        str, typer.Option(envvar="PILOTLIGHT_API_KEY", help="API key; else one is made for this machine.")
    ] = "",
    state: State = None,
    as_json: Json = False,
) -> None:
    """Wake an endpoint from zero again and again, and measure. Seconds to the first token, phase by phase.

    Example: pilotlight bench coldstart demo --wakes 20 --stock 3
    """
    from pilotlight.cli.bench.measure import measure_coldstart, print_coldstart

    if rung not in RUNGS:
        stop(f"--from {rung}: an endpoint can be woken from {', '.join(RUNGS)}", USAGE)
    found = measure_coldstart(
        settings_of(state),
        name,
        key,
        wakes=wakes,
        rung=rung,
        stock_starts=stock,
        loader_rounds=LOADER_ROUNDS if loaders else 0,
    )
    print_json(found) if as_json else print_coldstart(found)
