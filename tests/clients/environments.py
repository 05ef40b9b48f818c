"""Where a client program runs: an environment of its own, kept between runs outside the tree, so that a second run
installs nothing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from pilotlight.cli.bench.peers import NoPeer, python_with
from pilotlight.paths import cache_dir, private_folder
from tests.clients.table import FOLDER, Program

SECONDS = 600


class NotHere(Exception):
    """A program cannot be had on this machine; the text says why."""


def command(program: Program) -> list[str]:
    """What runs its script, installed where it has to be. Raises NotHere."""
    script, *arguments = program.script.split()
    if program.kind == "node":
        return ["node", str(_node_folder(program) / script), *arguments]
    if program.kind == "npm":
        modules = _node_folder(program) / "node_modules"
        return ["env", f"TRY_MODULES={modules}", sys.executable, str(FOLDER / script), *arguments]
    try:
        python = python_with(*program.packages) if program.packages else Path(sys.executable)
    except NoPeer as error:
        raise NotHere(str(error)) from error
    return [str(python), str(FOLDER / script), *arguments]


def _node_folder(program: Program) -> Path:
    """A folder with its packages and our scripts: Node looks for packages beside the script. Raises NotHere."""
    if shutil.which("npm") is None:
        raise NotHere("there is no Node here: install it, 20 or newer")
    name = hashlib.sha256("\0".join(program.packages).encode()).hexdigest()[:12]
    folder = private_folder(cache_dir() / "clients") / name
    stamp = folder / "installed"
    if not stamp.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "package.json").write_text(json.dumps({"private": True, "type": "module"}))
        asked = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", *program.packages]
        done = subprocess.run(asked, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
        if done.returncode:
            raise NotHere(
                f"npm could not install {', '.join(program.packages)}: {(done.stderr or done.stdout).strip()[-200:]}"
            )
        stamp.touch()
    for script in FOLDER.glob("*.mjs"):
        shutil.copy(script, folder / script.name)
    return folder
