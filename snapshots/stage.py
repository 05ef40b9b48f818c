"""Verified bytes on this node: `stage(store, digest, node_dir)` gives the folder to map weights from. Step 9, phase `fetch`.

From a store on the same machine nothing is copied. The first time every byte is hashed; then a stamp in `node_dir` keeps,
of every file, inode, size, mtime and ctime, and as long as they are the same a wake costs a few stats. The kernel sets
ctime at every change and nobody can set it back. It must survive files changed behind our back, also while they are being
hashed, and a stamp that is damaged: then everything is hashed again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from pilotlight.files import write_atomic
from snapshots.errors import TamperedError
from snapshots.store.disk import path_of
from snapshots.verify import REMEDY, listing, verify

CLOCK_GRAIN_NS = 20_000_000  # two changes within one tick of the kernel's clock bear the same ctime

State = dict[str, list[int]]  # path → device, inode, size, mtime, ctime (ns)


def stage(store: Path, digest: str, node_dir: Path) -> Path:
    """The folder of a snapshot whose every byte is what `digest` says. Raises NotStored, TamperedError, OSError."""
    folder = path_of(store, digest)
    stamp = node_dir / f"{folder.name}.stamp"
    before = _state(folder)
    if _stamped(stamp) == before:
        return folder
    _let_clock_tick(before)
    verify(folder)
    if _state(folder) != before:
        raise TamperedError(f"{folder} changed while it was being verified: {REMEDY}")
    node_dir.mkdir(parents=True, exist_ok=True)
    write_atomic(stamp, json.dumps(before).encode())
    return folder


def _state(folder: Path) -> State:
    return {
        path: [state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns] for path, state in listing(folder).items()
    }


def _stamped(stamp: Path) -> State | None:
    try:
        state: State = json.loads(stamp.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return state


def _let_clock_tick(state: State) -> None:
    """A file changed this very tick could change again unseen: let the tick pass before hashing."""
    newest = max(times[4] for times in state.values()) if state else 0
    left = newest + CLOCK_GRAIN_NS - time.time_ns()
    if 0 < left <= CLOCK_GRAIN_NS:
        time.sleep(left / 1e9)
