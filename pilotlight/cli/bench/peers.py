"""Programs we compare ourselves with, each in a virtual environment of its own, kept between measurements.

Made with the uv beside this Python where there is one, else with pip; either looks where pip is configured to look. An
environment that was not finished is made anew: its stamp is written last. They lie where nobody else can put a program
for us to run. A peer that cannot be had is told, never passed over.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

from pilotlight import wheels
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
            configured = wheels.configuration(Path(sys.executable))
            _install(
                [
                    str(uv),
                    "pip",
                    "install",
                    "--quiet",
                    "--python",
                    str(python),
                    *wheels.arguments(configured),
                    *packages,
                ],
                wheels.environment(configured, os.environ),
            )
        else:
            _install([str(python), "-m", "pip", "install", "--quiet", *packages], os.environ)
        stamp.touch()
    return python


def _install(command: list[str], environ: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoPeer(str(error)) from error
    if done.returncode:
        raise NoPeer((done.stderr.strip().splitlines() or ["no reason given"])[-1])
