"""A pack that is killed half-way leaves no snapshot, and the next pack cleans up after it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from snapshots.manifest import folder_name
from snapshots.pack import pack
from snapshots.store.disk import digests
from tests.model_folders import PLAIN, write

KILLED = """
import os, signal, sys
from pathlib import Path
from snapshots.pack import pack
pack(Path(sys.argv[1]), Path(sys.argv[2]), lambda done, total: done > total // 2 and os.kill(os.getpid(), signal.SIGKILL))
"""


def test_kill_half_way_leaves_no_snapshot_and_the_next_pack_cleans_up(tmp_path: Path) -> None:
    model, store = write(tmp_path / "model", PLAIN), tmp_path / "store"
    died = subprocess.run([sys.executable, "-c", KILLED, model, store], check=False)
    assert died.returncode == -9
    assert digests(store) == []
    assert list(store.glob(".new-*"))
    manifest = pack(model, store)
    assert {entry.name for entry in store.iterdir()} == {".lock", folder_name(manifest.digest)}
