"""The settings of every process: flag > environment (`PILOTLIGHT_SECTION__KEY`) > `pilotlight.toml` > default.

What can be set stands in `sections.py`. The three sources are read here and checked by pydantic; pydantic-settings
would do the same for 5 MB more in every process. `DATABASE_URL`, as everywhere, names a Postgres of your own. The
failure to survive is a malformed value: it stops the process with the field's name and what was wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from pilotlight import settings_file
from pilotlight.parsed import json_of
from pilotlight.paths import LONGEST_STATE, Paths, SettingsError, absolute, default_state_dir, make_folder
from pilotlight.postgres_address import with_absolute_files
from pilotlight.sections import (
    ActivatorSettings,
    DiskSettings,
    LedgerSettings,
    LogSettings,
    RouterSettings,
    RuntimeSettings,
    Section,
    SnapshotSettings,
    WatchSettings,
)

__all__ = [
    "LONGEST_STATE",
    "PREFIX",
    "ActivatorSettings",
    "DiskSettings",
    "LogSettings",
    "Paths",
    "RouterSettings",
    "RuntimeSettings",
    "Section",
    "Settings",
    "SettingsError",
    "load",
    "make_folder",
]

PREFIX = "PILOTLIGHT_"


class Settings(Section):
    """All settings of an installation."""

    state_dir: Annotated[Path, AfterValidator(absolute)] = Field(
        default_factory=default_state_dir, description="Folder of everything this machine keeps."
    )
    database_url: Annotated[str, AfterValidator(with_absolute_files)] = Field(
        default="", description="Postgres to use instead of the embedded one (also DATABASE_URL)."
    )
    router: RouterSettings = RouterSettings()
    activator: ActivatorSettings = ActivatorSettings()
    ledger: LedgerSettings = LedgerSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    snapshots: SnapshotSettings = SnapshotSettings()
    logs: LogSettings = LogSettings()
    watch: WatchSettings = WatchSettings()
    disk: DiskSettings = DiskSettings()

    @property
    def paths(self) -> Paths:
        return Paths(self.state_dir)


def load(**overrides: Any) -> Settings:
    """Read the settings; `overrides` are the flags given. Raises SettingsError."""
    given = {key: value for key, value in overrides.items() if value is not None}
    if "database_url" not in given and "PILOTLIGHT_DATABASE_URL" not in os.environ and os.environ.get("DATABASE_URL"):
        given["database_url"] = os.environ["DATABASE_URL"]
    try:
        return Settings.model_validate(
            _over(given, _over(from_environment(os.environ), settings_file.read(os.environ)))
        )
    except ValidationError as error:
        raise SettingsError("bad settings: " + "; ".join(map(_explain, error.errors()))) from error


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """What `PILOTLIGHT_SECTION__KEY` and `PILOTLIGHT_SECTION` (as JSON) give; a key goes before its section. Raises
    SettingsError.
    """
    found: dict[str, Any] = {}
    for name in sorted(environ, key=lambda name: name.count("__")):
        section, *keys = name.upper().removeprefix(PREFIX).lower().split("__")
        field = Settings.model_fields.get(section)
        if field is None or not name.upper().startswith(PREFIX):
            continue
        if not isinstance(field.annotation, type) or not issubclass(field.annotation, Section):
            if not keys:
                found[section] = environ[name]
            continue
        value: Any = environ[name]
        if not keys:
            try:
                value = json_of(value)
            except ValueError as error:
                raise SettingsError(f"bad settings: {section}: {name} must hold a JSON object ({error})") from error
        for key in reversed(keys):
            value = {key: value}
        found[section] = _over(value, found.get(section))
    return found


def _over(above: Any, below: Any) -> Any:
    """Both, section by section; where both give a value, `above` has it."""
    if not isinstance(above, dict) or not isinstance(below, dict):
        return above
    return below | {key: _over(value, below.get(key)) for key, value in above.items()}


def _explain(error: Any) -> str:
    """One line for one of pydantic's errors; what may hold a password is not repeated."""
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"{name}: {_unknown(name)}"
    got = "" if "url" in name else f" (got {error['input']!r})"
    return f"{name}: {error['msg']}{got}"


def _unknown(name: str) -> str:
    """What is said of a setting that there is not: those that may be meant, or the sections there are."""
    from difflib import get_close_matches

    known = list(_dotted(Settings))
    near = [each for each in known if each.rpartition(".")[2] == name.rpartition(".")[2]] or get_close_matches(
        name, known, n=1, cutoff=0.8
    )
    sections = ", ".join(field for field in Settings.model_fields if field not in known)
    return (
        f"there is no such setting; {' or '.join(near)} may be meant"
        if near
        else f"there is no such setting; the sections are {sections}"
    )


def _dotted(model: type[BaseModel], section: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _dotted(field.annotation, f"{name}.")
        else:
            yield f"{section}{name}"
