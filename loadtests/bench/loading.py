"""The loader table on one file of 1.2 GB: ours beside the format's own library, vLLM's loader and the peers, warm and
cold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loadtests.bench import hardware
from loadtests.bench.targets import at_least
from pilotlight.cli.bench import loaders
from pilotlight.cli.bench.coldstart import say

BUS_SHARE = 0.8  # of the pinned copy's pace, on a GPU


def measure(model: Path, found: dict[str, Any], *, rounds: int) -> None:
    table = loaders.compare(
        max(model.glob("*.safetensors"), key=lambda file: file.stat().st_size),
        rounds=rounds,
        gpu=hardware.gpu() != "none",
        scratch=model.parent,
        say=say,
    )
    found |= {
        "notes": [
            f"{table['file_bytes'] / 1e6:.0f} MB bf16 to CPU tensors, median of {rounds}; cold: the file's pages were dropped "
            "(`fsync`, then `posix_fadvise`) before each load, so that the disk reads. vLLM's loader copies each tensor into a parameter; "
            "tensorizer reads its own format of the same tensors. A library's first use of itself is not counted."
        ],
        "tables": {"seconds": [["loader", "page cache warm", "pages dropped"], *map(list, loaders.lines(table))]},
        "GPU lines": table["gpu_lines"],
        "loaders": table["loaders"],
    }
    if share := table.get("ring_share_of_pinned_copy"):
        found["targets"] = [at_least("must", "bytes/s of the ring over the same run's pinned copy", share, BUS_SHARE)]
