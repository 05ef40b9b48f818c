"""Programs we compare ourselves with, each in a virtual environment of its own, kept between measurements.

Made with the uv beside this Python where there is one, else with pip; either looks where pip is configured to look. An
environment that was not finished is made anew: its stamp is written last. They lie where nobody else can put a program for us to run. A peer that cannot be had is told, never passed over.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from pilotlight import children
from pilotlight.paths import SettingsError, cache_dir, private_folder

SECONDS = 600  # the longest an installation may take


class NoPeer(Exception):
    """A peer could not be installed; the text is the installer's last line."""


def python_with(*packages: str, place: Path | None = None) -> Path:
    """The Python of an environment that has these packages, below `place` or in our cache. Raises NoPeer."""
    name = hashlib.sha256("\0".join((sys.version, *packages)).encode()).hexdigest()[:12]
    try:
        folder = private_folder(place or cache_dir() / "peers") / name
    except (OSError, SettingsError) as error:
        raise NoPeer(str(error)) from error
    python, stamp = folder / "bin" / "python", folder / "installed"
    if not stamp.exists():
        shutil.rmtree(folder, ignore_errors=True)
        uv = Path(sys.executable).parent / "uv"
        venv.create(folder, with_pip=not uv.exists())
        if uv.exists():
            _install([str(uv), "pip", "install", "--quiet", "--python", str(python), *sources(), *packages])
        else:
            _install([str(python), "-m", "pip", "install", "--quiet", *packages])
        stamp.touch()
    return python


def _install(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoPeer(str(error)) from error
    if done.returncode:
        raise NoPeer((done.stderr.strip().splitlines() or ["no reason given"])[-1])


def sources() -> list[str]:
    """Where pip is configured to find packages, as uv's arguments: uv does not read pip's configuration."""
    listed = subprocess.run([*children.python("pip"), "config", "list"], capture_output=True, text=True, check=False)
    found: dict[str, str] = {}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        found[name.rpartition(".")[2]] = value.strip("'")
    names = ("find-links", "extra-index-url", "index-url")
    arguments = [part for name in names for value in found.get(name, "").split() if _present(value) for part in (f"--{name}", value)]
    return [*arguments, "--index-strategy", "unsafe-best-match"]


def _present(place: str) -> bool:
    return not place.startswith("file://") or Path(place.removeprefix("file://")).is_dir()
