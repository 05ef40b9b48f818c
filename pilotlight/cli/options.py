"""What all commands share: the exit codes, the options that mean the same everywhere, and the way to stop with one
line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from pilotlight.cli.exit_codes import (
    EXIT_CODES,
    FAILED,
    INTERRUPTED,
    OK,
    UNREACHABLE,
    USAGE,
    explain_os_error,
    one_line,
    say,
)

if TYPE_CHECKING:
    from pilotlight.settings import Settings

__all__ = [
    "EXIT_CODES",
    "FAILED",
    "INTERRUPTED",
    "OK",
    "UNREACHABLE",
    "USAGE",
    "Json",
    "MaybeName",
    "Model",
    "Name",
    "State",
    "duration_option",
    "endpoint_name",
    "endpoint_names",
    "explain_os_error",
    "one_line",
    "print_json",
    "say",
    "settings_of",
    "span",
    "stop",
]  # fmt: skip


def endpoint_names(incomplete: str) -> Iterator[str]:
    """For shell completion: the endpoints of the running installation; none where it cannot be asked."""
    from pilotlight.cli.api import Api, ApiError
    from pilotlight.settings import SettingsError, load

    try:
        found = Api(load().paths, timeout=1.0).call("GET", "/endpoints")["data"]
    except (ApiError, SettingsError):
        return
    yield from (row["name"] for row in found if row["name"].startswith(incomplete))


State = Annotated[
    Path | None, typer.Option("--state", envvar="PILOTLIGHT_STATE_DIR", help="State folder of the installation.")
]
Model = Annotated[
    str | None,
    typer.Option(
        help="Folder of a Hugging Face model (safetensors, config, tokenizer); or pilotlight://demo, which comes with Pilotlight; or "
        "hf://ORG/NAME[@REVISION], which is fetched. HF_TOKEN opens private and gated models, HF_ENDPOINT names a mirror, and "
        "HF_HUB_OFFLINE=1 uses the cache alone.",
    ),
]


def seconds(parameter: typer.CallbackParam, text: str | None) -> float | None:
    """An option's duration, with a unit or a bare number of seconds; stops where it is none."""
    from pilotlight.cli.times import MomentError, duration_seconds

    try:
        return None if text is None else duration_seconds(text)
    except MomentError as error:
        stop(f"{parameter.opts[0]} {error}", USAGE)


def duration_option(meaning: str) -> Any:
    """An option that takes a duration as people write it. Its value is in seconds."""
    return typer.Option(parser=str, callback=seconds, metavar="DURATION", help=meaning)


def span(since: str | None, until: str | None) -> tuple[float | None, float | None]:
    """`--since` and `--until` in Unix seconds; stops where one is not a moment, or the second lies before the first."""
    begin, end = _moment("--since", since), _moment("--until", until)
    if begin is not None and end is not None and end < begin:
        stop(f"--until {until} lies before --since {since}: swap them", USAGE)
    return begin, end


def _moment(option: str, text: str | None) -> float | None:
    from pilotlight.cli.times import MomentError, unix_seconds

    try:
        return None if text is None else unix_seconds(text)
    except MomentError as error:
        stop(f"{option} {error}", USAGE)


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _maybe_name(name: str | None) -> str | None:
    return None if name is None else endpoint_name(name)


def endpoint_name(name: str) -> str:
    """A name goes into URLs and paths, so what cannot be one ends here."""
    from pilotlight.endpoint_names import SAID, is_name

    if not is_name(name):
        stop(f"{name!r} is not an endpoint's name: it has {SAID}", USAGE)
    return name


Name = Annotated[
    str, typer.Argument(help="Name of the endpoint.", autocompletion=endpoint_names, callback=endpoint_name)
]

MaybeName = Annotated[
    str | None, typer.Argument(help="Only this endpoint.", autocompletion=endpoint_names, callback=_maybe_name)
]


def settings_of(state: Path | None, **router: object) -> Settings:
    """The settings, with the flags given on top; stops where one is malformed."""
    from pilotlight.settings import SettingsError, load

    given = {key: value for key, value in router.items() if value is not None}
    try:
        return load(state_dir=state, router=given or None)
    except SettingsError as error:
        stop(str(error), USAGE)


def stop(message: str, code: int = FAILED) -> NoReturn:
    """One line on stderr, and the exit code."""
    print(f"pilotlight: {one_line(message)}", file=sys.stderr)
    raise typer.Exit(code)


def print_json(value: Any) -> None:
    print(json.dumps(value))
