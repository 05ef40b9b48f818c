"""`pilotlight config explain`: every setting, its value, where that comes from, and what it means."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pilotlight import settings_file
from pilotlight.cli.options import print_json, say
from pilotlight.cli.tables import Table, show, written
from pilotlight.postgres_address import without_password
from pilotlight.settings import Settings


@dataclass(frozen=True)
class Explained:
    """One setting with its value, and where that comes from."""

    name: str  # "router.port"
    value: Any
    origin: str  # flag, file NAME, environment VARIABLE, default
    variable: str
    description: str


def explain_settings(settings: Settings, flags: set[str], *, as_json: bool) -> None:
    """`flags`: names of settings given as flags."""
    file = settings_file.config_file(os.environ, tell=False)  # `settings` were read before
    in_file = settings_file.read(os.environ) if file else {}
    found = list(explained(settings, flags=flags, environ=os.environ, in_file=in_file, file=str(file)))
    if as_json:
        print_json([asdict(setting) for setting in found])
        return
    rows = Table("setting", "value", "from", prose="meaning")
    for setting in found:
        rows.add_row(setting.name, written(setting.value), setting.origin, setting.description)
    show(rows)
    say(
        "Flag > environment > file > default. A setting's variable is PILOTLIGHT_ and its name, __ for the dot: PILOTLIGHT_ROUTER__PORT."
    )


def explained(
    settings: Settings, *, flags: set[str], environ: Mapping[str, str], in_file: dict[str, Any], file: str
) -> Iterator[Explained]:
    """Pure."""
    for path, field, value in walk(settings):
        name, variable = ".".join(path), variable_of(path)
        origin = (
            "flag"
            if name in flags
            else _from_environment(path, {key.upper() for key in environ})
            or (f"file {file}" if _in(in_file, path) else "")
            or ("environment DATABASE_URL" if name == "database_url" and value else "default")
        )
        yield Explained(
            name, without_password(str(value)) if _is_text(value) else value, origin, variable, field.description or ""
        )


def walk(model: BaseModel, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo, Any]]:
    """(path, field, value) of every setting, sections opened."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from walk(value, (*path, name))
        else:
            yield (*path, name), field, value


def variable_of(path: tuple[str, ...]) -> str:
    return "PILOTLIGHT_" + "__".join(path).upper()


def _from_environment(path: tuple[str, ...], variables: set[str]) -> str:
    """The variable that gives it: its own, or its section's as JSON."""
    for length in range(len(path), 0, -1):
        if (variable := variable_of(path[:length])) in variables:
            return f"environment {variable}"
    return ""


def _in(tree: Any, path: tuple[str, ...]) -> bool:
    for step in path:
        if not isinstance(tree, dict) or step not in tree:
            return False
        tree = tree[step]
    return True


def _is_text(value: object) -> bool:
    return isinstance(value, str | Path)
