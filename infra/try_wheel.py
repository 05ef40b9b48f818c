"""Builds the wheel, installs it as strangers do, in clean environments, and sees it serve: `make wheel`.

    python infra/try_wheel.py            the wheel into dist/, then by `uv tool install` and by pipx
    python infra/try_wheel.py build      the wheel into dist/, and no more

Each way is the one that docs/installing.md tells, with the locked requirements of this machine's engine. What is
installed runs in an empty folder, with a home and a PATH that know nothing of this checkout. It shows its version, then
runs `doctor`, and `demo`, which wakes, asks and bills. It must survive what strangers have: packages from wherever pip
is configured to find them (`setup.py` tells uv).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from infra import setup
from pilotlight import wheels

DIST = setup.ROOT / "dist"
PIPX = "pipx>=1.7"


def main() -> int:
    wheel = build()
    if sys.argv[1:] == ["build"]:
        print(wheel)
        return 0
    extra = setup.pick_extra()
    for way in (by_uv, by_pipx):
        with tempfile.TemporaryDirectory(prefix="pilotlight-wheel-", dir="/tmp") as folder:
            Path(folder).chmod(0o755)  # Postgres, which is not root, has to get at its programs
            begin = time.monotonic()
            see_it_serve(way(wheel, extra, Path(folder)), Path(folder))
            setup.say(f"{way.__doc__}: it serves, after {time.monotonic() - begin:.0f} s")
    return 0


def build() -> Path:
    DIST.mkdir(exist_ok=True)
    for old in DIST.glob("*.whl"):
        old.unlink()
    setup.uv(
        [
            "build",
            "--quiet",
            "--wheel",
            "--no-build-isolation",
            "--offline",
            "--python",
            setup.PYTHON,
            "--out-dir",
            DIST,
            setup.ROOT,
        ]
    )
    (wheel,) = DIST.glob("*.whl")
    return wheel


def by_uv(wheel: Path, extra: str, folder: Path) -> Path:
    """uv tool install"""
    locks = [argument for file in locked(extra) for argument in ("--with-requirements", file)]
    overrides = ["--overrides", setup.LOCKS / "overrides.txt"]
    clean(
        [
            setup.UV,
            "tool",
            "install",
            "--python",
            setup.PYTHON,
            *setup.sources(extra),
            *locks,
            *overrides,
            f"pilotlight[{extra}] @ file://{wheel}",
        ],
        folder,
    )
    return folder / "bin" / "pilotlight"


def by_pipx(wheel: Path, extra: str, folder: Path) -> Path:
    """pipx install"""
    pipx = [setup.UV, "tool", "run", *setup.sources(extra), "--from", PIPX, "pipx"]
    locks = [f"--preinstall=-r{file}" for file in locked(extra)]
    clean(
        [
            *pipx,
            "install",
            "--python",
            setup.PYTHON,
            *locks,
            f"--pip-args={' '.join(['--no-deps', *pip_sources(extra)])}",
            wheel,
        ],
        folder,
    )
    return folder / "bin" / "pilotlight"


def locked(extra: str) -> list[Path]:
    """All that the wheel needs with this extra: its lock has what the wheel needs without one, too."""
    return [
        setup.LOCKS / f"{name}.txt" for name in {"cpu": ("cpu", "torch-cpu"), "gpu": ("gpu",), "none": ("base",)}[extra]
    ]


def pip_sources(extra: str) -> list[str]:
    """pip reads its own configuration; PyTorch's CPU index is added where that has no place for its wheels."""
    needed = (
        extra == "cpu" and "--extra-index-url" in setup.sources(extra) and "--find-links" not in setup.sources(extra)
    )
    return ["--extra-index-url", setup.TORCH_CPU_INDEX] if needed else []


def see_it_serve(program: Path, folder: Path) -> None:
    """Raises CalledProcessError."""
    empty = folder / "empty"
    empty.mkdir()
    for words in (["--version"], ["doctor"], ["demo"]):
        clean([program, *words], folder, cwd=empty)
    if left := list(empty.iterdir()):
        raise SystemExit(setup.fail(f"it left {left} in the folder it was called from"))


def clean(command: list[object], folder: Path, *, cwd: Path | None = None) -> None:
    """Run it as somebody who has nothing but this folder, and where pip finds packages."""
    found = wheels.configuration(setup.PYTHON)
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PIP_", "SSL_", "LC_", "LANG")) or "proxy" in name.lower()
    }
    ours = {
        "HOME": str(folder),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "UV_TOOL_DIR": str(folder / "uv"),
        "UV_TOOL_BIN_DIR": str(folder / "bin"),
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR") or str(Path.home() / ".cache" / "uv"),
        "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR") or str(Path.home() / ".cache" / "pip"),
        "PIPX_HOME": str(folder / "pipx"),
        "PIPX_BIN_DIR": str(folder / "bin"),
        "XDG_CONFIG_DIRS": os.environ.get("XDG_CONFIG_DIRS", ""),
    }
    environ = wheels.environment(found, kept | ours)
    subprocess.run([str(part) for part in command], check=True, cwd=cwd or folder, env=environ)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(setup.fail(f"this failed (see above): {' '.join(map(str, error.cmd))}"))
    except KeyboardInterrupt:
        sys.exit(setup.fail("interrupted"))
