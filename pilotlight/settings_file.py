"""The file of settings, `pilotlight.toml`: which one counts, and what it holds. Before step 1.

The failure to survive: a working folder of somebody else's. Whoever writes that file chooses the database, the store
and the state folder, and for root that is the machine. So a file that a stranger may write is read only where it is
named.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilotlight.parsed import toml_of
from pilotlight.paths import SettingsError, absolute

FILE = "pilotlight.toml"
NO_FILE = "-"  # PILOTLIGHT_CONFIG of a process that is told everything by variables


def read(environ: Mapping[str, str]) -> dict[str, Any]:
    """What the file says; nothing where there is none. Raises SettingsError."""
    file = config_file(environ)
    if file is None:
        return {}
    try:
        return toml_of(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SettingsError(f"{file} is not TOML: {error}") from error
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be read ({error.strerror}): correct that, or name another in PILOTLIGHT_CONFIG"
        ) from error


def config_file(environ: Mapping[str, str], *, tell: bool = True) -> Path | None:
    """The file of settings: the one that is named, else `./pilotlight.toml` where it is ours; None: there is none.
    Raises SettingsError.

    Whoever may write the file decides what runs, and as whom: one that lies in a folder of somebody else's is passed
    over, and that is said, but to those who were told already (`tell`).
    """
    if named := environ.get("PILOTLIGHT_CONFIG", ""):
        if named == NO_FILE:
            return None
        file = absolute(Path(named))
        if not file.is_file():
            raise SettingsError(
                f"PILOTLIGHT_CONFIG names {named}, which is not a file: correct it, or unset it to read ./{FILE}"
            )
        return file
    file = Path(FILE)
    try:
        found = file.stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    if stranger := _stranger(found, os.geteuid(), environ.get("SUDO_UID", "")):
        if tell:
            print(
                f"pilotlight: ./{FILE} is not read, for {stranger}; if you trust it: PILOTLIGHT_CONFIG=./{FILE}",
                file=sys.stderr,
            )
        return None
    return file


def _stranger(found: os.stat_result, uid: int, sudo_uid: str) -> str:
    """Who else decides what a file says: neither we, nor root, nor who became root by sudo. Empty where nobody does.
    Pure.
    """
    if found.st_uid not in (0, uid) and not (uid == 0 and sudo_uid == str(found.st_uid)):
        return f"it belongs to another user ({found.st_uid})"
    return "everybody may write it" if found.st_mode & stat.S_IWOTH else ""
