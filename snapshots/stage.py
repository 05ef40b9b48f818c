"""Verified bytes on this node: `stage(store, digest, node_dir)` gives the folder to map weights from. Step 9, phase `fetch`.

Nothing is copied: the store is on this machine, and what was elsewhere has been pulled into it (`transfer.py`). Of many who
ask at the same time, threads and processes, one does the work. The first time every byte is hashed, unless this process has
just done so while it pulled (`adopt`); then a stamp in `node_dir` keeps, of every file, inode, size, mtime and ctime, and as long as they are the same a wake costs a few stats. The kernel sets
ctime at every change and nobody can set it back. It must survive files changed behind our back, also while they are being
hashed, and a stamp that is damaged: then everything is hashed again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import structlog

from pilotlight.files import write_atomic
from snapshots.errors import TamperedError
from snapshots.flight import alone
from snapshots.manifest import folder_name
from snapshots.store.disk import path_of
from snapshots.verify import REMEDY, listing, verify

CLOCK_GRAIN_NS = 20_000_000  # two changes within one tick of the kernel's clock bear the same ctime

log = structlog.get_logger()

State = dict[str, list[int]]  # path → device, inode, size, mtime, ctime (ns)


def stage(store: Path, digest: str, node_dir: Path) -> Path:
    """The folder of a snapshot whose every byte is what `digest` says; blocks, so never on an event loop.

    Raises NotStored, TamperedError, OSError.
    """
    folder = store / folder_name(digest)
    stamp = node_dir / f"{folder.name}.stamp"
    if _is_stamped(folder, stamp):
        return folder
    node_dir.mkdir(parents=True, exist_ok=True)
    with alone(node_dir / f"{folder.name}.lock"):
        if not _is_stamped(folder, stamp):  # else: another did it while we waited
            _verify(path_of(store, digest), stamp)
    return folder


def adopt(folder: Path, node_dir: Path) -> None:
    """Stamp a snapshot that this process has just written and published, having checked every byte on its way. Raises OSError."""
    node_dir.mkdir(parents=True, exist_ok=True)
    state = _state(folder)
    _let_clock_tick(state)
    _keep(node_dir / f"{folder.name}.stamp", state)


def _verify(folder: Path, stamp: Path) -> None:
    before = _state(folder)
    _let_clock_tick(before)
    verify(folder)
    if _state(folder) != before:
        raise TamperedError(f"{folder} changed while it was being verified: {REMEDY}")
    _keep(stamp, before)


def _keep(stamp: Path, state: State) -> None:
    """A disk without room for it costs the next stage a verification, and this one nothing."""
    try:
        write_atomic(stamp, json.dumps(state).encode())
    except OSError as error:
        log.warning(
            "that a snapshot is verified is not kept; the next to stage it reads it again", action="stamp_unkept", reason=str(error)
        )


def _is_stamped(folder: Path, stamp: Path) -> bool:
    stamped = _stamped(stamp)
    return stamped is not None and folder.is_dir() and _state(folder) == stamped


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
