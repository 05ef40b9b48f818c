"""The wheel, as who has no checkout has it: it holds all that the packages do, and `pilotlight demo` from it goes its
way to the end.

Its requirements are this environment's, for to install them anew takes a minute: `make wheel` does that, with `uv tool
install` and pipx.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.acceptance.test_demo import Begun

ROOT = Path(__file__).parents[2]
PACKAGES = ("pilotlight", "router", "activator", "runtime", "snapshots")
UV = str(Path(sys.executable).with_name("uv"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    how = ["--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(out)]
    subprocess.run([UV, "build", "--quiet", "--offline", *how, str(ROOT)], check=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pilotlight`, installed from the wheel; this checkout's own packages are not in its reach."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    python = folder / "bin" / "python"
    subprocess.run(
        [UV, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(python), str(wheel)], check=True
    )
    (ours,) = folder.glob("lib/python*/site-packages")
    # a .pth in there, as the checkout's, is not followed
    (ours / "requirements.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "pilotlight"


def test_it_holds_every_file_of_the_packages(wheel: Path) -> None:
    files = [
        file
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    ]
    there = {str(file.relative_to(ROOT)) for file in files}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == there
    assert len(there) > 300


def test_the_demo_shows_zero_cold_warm_billed_zero_and_cold_again(program: Path, tmp_path: Path) -> None:
    """From an empty folder: whatever runs is the wheel's."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    where = [str(program.with_name("python")), "-P", "-c", "import pilotlight; print(pilotlight.__file__)"]
    ours = subprocess.run(where, capture_output=True, text=True, check=True, cwd=tmp_path, env=clean).stdout
    assert ours.startswith(str(program.parents[1]))
    demo = Begun([str(program), "demo"], environ=clean, folder=tmp_path)
    output, _ = demo.process.communicate(timeout=300)
    assert demo.process.returncode == 0, output
    for shown in ("What is Pilotlight?", "first_token", "the endpoint is at zero", "cold again", "engine", "0.0000"):
        assert shown in output
    demo.leaves_nothing()
    assert not list(tmp_path.iterdir())
