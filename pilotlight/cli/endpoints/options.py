"""What deploy, apply, set and rollback share: how long they wait, and engine arguments on the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from pilotlight.cli.options import USAGE, stop

Wait = Annotated[
    bool,
    typer.Option(
        "--wait",
        help="Wait until the new revision serves or has failed; the old one serves meanwhile. This is the default.",
    ),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return at once; the deploy goes on.")]
AtOnce = Annotated[
    bool,
    typer.Option(
        "--at-once",
        help="Put the route on the new revision now, whether it will start or not; the old one makes room for it.",
    ),
]
EngineArgs = Annotated[
    list[str] | None,
    typer.Option(
        "--engine-arg",
        help="An argument of vLLM's serve command, KEY=VALUE; may be repeated. Those given are added to what it has. "
        "One is ours: graphs-when-idle=true, on a GPU, answers before CUDA graphs are captured.",
    ),
]
UnsetEngineArgs = Annotated[
    list[str] | None, typer.Option("--unset-engine-arg", help="An engine argument to clear, KEY; may be repeated.")
]


def waits(wait: bool, no_wait: bool) -> bool:
    """Whether a command waits; stops where it is told both."""
    if wait and no_wait:
        stop("give one of --wait (until it serves, or has failed) and --no-wait (return at once), not both", USAGE)
    return not no_wait


def engine_args(pairs: list[str]) -> dict[str, str | int | float | bool]:
    """KEY=VALUE as typed values: true, false, whole numbers and decimals are told apart from text."""
    found: dict[str, str | int | float | bool] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            stop(f"--engine-arg {pair!r}: write KEY=VALUE, such as max-model-len=2048", USAGE)
        if key in found:
            stop(f"--engine-arg {key} is given twice: give it once", USAGE)
        found[key] = _typed(value)
    return found


def _typed(value: str) -> str | int | float | bool:
    if value in ("true", "false"):
        return value == "true"
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
