"""How this Pilotlight came onto the machine, and so what installs what is missing of it. For messages: of `doctor`, of
processes that lack a part.

A checkout is filled by `make setup`; a package by pip, uv or pipx, where there is no make. What must survive is a
reader who has only the message: it never names a command that is not there.
"""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).parents[1]


def is_checkout(root: Path = CHECKOUT) -> bool:
    """Whether the packages lie beside what builds them."""
    return (root / "Makefile").is_file() and (root / "infra" / "setup.py").is_file()


def remedy(extra: str = "", *, root: Path = CHECKOUT) -> str:
    """What installs the parts of an extra (cpu, gpu), or of Pilotlight itself."""
    if is_checkout(root):
        return f"run `{f'PILOTLIGHT_EXTRA={extra} ' if extra else ''}make setup`, and start pilotlight from its .venv"
    package = f"pilotlight[{extra}]" if extra else "pilotlight"
    return f"install {package} as docs/installing.md says"


def installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pilotlight")
    except PackageNotFoundError:  # a folder of sources that was never installed
        return f"unknown (not installed: {remedy()})"
