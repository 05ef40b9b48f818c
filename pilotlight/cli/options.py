"""What all commands share: the exit codes, the options that mean the same everywhere, and the way to stop with one line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from pilotlight.settings import Settings

OK, FAILED, USAGE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = {
    OK: "done",
    FAILED: "it failed, and the message says what to do",
    USAGE: "wrong usage, or a malformed setting or manifest",
    UNREACHABLE: "Pilotlight, its database or its store is not running or not reachable",
    INTERRUPTED: "interrupted with Ctrl-C",
}


def endpoint_names(incomplete: str) -> Iterator[str]:
    """For shell completion: the endpoints of the running installation; none where it cannot be asked."""
    from pilotlight.cli.api import Api, ApiError
    from pilotlight.settings import SettingsError, load

    try:
        found = Api(load().paths, timeout=1.0).call("GET", "/endpoints")["data"]
    except (ApiError, SettingsError):
        return
    yield from (row["name"] for row in found if row["name"].startswith(incomplete))


State = Annotated[Path | None, typer.Option("--state", envvar="PILOTLIGHT_STATE_DIR", help="State folder of the installation.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def endpoint_name(name: str) -> str:
    """A name goes into URLs and paths, so what cannot be one ends here."""
    import re

    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
        stop(f"{name!r} is no endpoint's name: it has 1 to 63 of a-z, 0-9 and inner hyphens", USAGE)
    return name


Name = Annotated[str, typer.Argument(help="Name of the endpoint.", autocompletion=endpoint_names, callback=endpoint_name)]


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


def one_line(text: str) -> str:
    return " ".join(text.split())


def say(text: str) -> None:
    typer.echo(text, err=True)


def print_json(value: Any) -> None:
    print(json.dumps(value))


def explain_os_error(error: OSError) -> str:
    """What the kernel refused, where, and what to do about it."""
    import errno

    place = error.filename if isinstance(error.filename, str) else os.fsdecode(error.filename) if error.filename else ""
    remedies = {
        errno.ENOSPC: "the disk is full: free some space, or choose another folder with --state; nothing that was whole is lost",
        errno.EDQUOT: "the disk quota is used up: free some space, or choose another folder with --state",
        errno.EACCES: "run as the user who owns it, or choose another folder",
        errno.EPERM: "run as the user who owns it, or choose another folder",
        errno.EROFS: "the file system is read-only: choose another folder with --state",
        errno.ENOTDIR: "something on this path is a file where a folder must be: choose another folder with --state",
        errno.ENOENT: "it is missing: correct the path, or restore it from a backup",
    }
    what = error.strerror or str(error)
    remedy = remedies.get(error.errno or 0, "")
    return f"{place}: {what}" + (f"; {remedy}" if remedy else "") if place else what + (f"; {remedy}" if remedy else "")
