"""Verified bytes on this node: `stage(store, digest, node_dir)` gives the folder to map weights from. Step 9, `fetch`.

Nothing is copied: the store is on this machine, and what was elsewhere has been pulled into it (`transfer.py`). Of many
who ask at the same time, threads and processes, one does the work. The first time every byte is hashed, unless this
process has just done so while it pulled (`adopt`). Then a stamp in `node_dir` keeps, of every file, inode, size, mtime
and ctime. As long as they are the same, a wake costs a few stats. The kernel sets ctime at every change and nobody can
set it back. What packing would have refused is refused here too. The stamp says by which rules it was judged, so that a
snapshot of an older release is judged once, and not read again.

It must survive files changed behind our back, also while they are being hashed, and a stamp that is damaged: then
everything is hashed again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import structlog

from pilotlight.files import write_atomic
from pilotlight.parsed import json_of
from snapshots.errors import TamperedError
from snapshots.judging import judge_contents, judge_names
from snapshots.manifest import digest_of_folder, folder_name, read_manifest
from snapshots.singleflight import alone
from snapshots.store.disk import path_of
from snapshots.verify import REMEDY, listing, verify

CLOCK_GRAIN_NS = 20_000_000  # two changes within one tick of the kernel's clock bear the same ctime
RULES = "./"  # among the paths of a stamp; no file has this one
NUMBER_OF_RULES = 2  # raised when what packing refuses gets more

log = structlog.get_logger()

State = dict[str, list[int]]  # path → device, inode, size, mtime, ctime (ns)


def stage(store: Path, digest: str, node_dir: Path, *, code: bool = False) -> Path:
    """The folder of a snapshot whose every byte is what `digest` says, and that could have been packed; blocks, so
    never on an event loop.

    `code`: it may hold the model's own. Raises NotStored, TamperedError, PackError, HeaderError, OSError.
    """
    folder = store / folder_name(digest)
    stamp = node_dir / f"{folder.name}.stamp"
    if _is_stamped(folder, stamp, code):
        return folder
    node_dir.mkdir(parents=True, exist_ok=True)
    with alone(node_dir / f"{folder.name}.lock"):
        if not _is_stamped(folder, stamp, code):  # else: another did it while we waited
            _verify(path_of(store, digest), stamp, code)
    return folder


def adopt(folder: Path, node_dir: Path, *, code: bool = False) -> None:
    """Stamp a snapshot that this process has just written, judged and published, having checked every byte on its way.
    Raises OSError.
    """
    node_dir.mkdir(parents=True, exist_ok=True)
    state = _state(folder)
    _let_clock_tick(state)
    _keep(node_dir / f"{folder.name}.stamp", state | _rules(code))


def _verify(folder: Path, stamp: Path, code: bool) -> None:
    """1. Its bytes, unless they are known to be good. 2. What they are."""
    before = _state(folder)
    if before != {path: state for path, state in (_stamped(stamp) or {}).items() if path != RULES}:  # 1
        _let_clock_tick(before)
        verify(folder)
    manifest = read_manifest(folder, digest_of_folder(folder.name) or "")
    judge_names(manifest, code=code)  # 2
    judge_contents(folder, manifest, code=code)
    if _state(folder) != before:
        raise TamperedError(f"{folder} changed while it was being verified: {REMEDY}")
    _keep(stamp, before | _rules(code))


def _rules(code: bool) -> State:
    """By which rules it was judged. What may hold code was judged by laxer ones."""
    return {RULES: [NUMBER_OF_RULES, int(code)]}


def _keep(stamp: Path, state: State) -> None:
    """A disk without room for it costs the next stage a verification, and this one nothing."""
    try:
        write_atomic(stamp, json.dumps(state).encode())
    except OSError as error:
        log.warning(
            "that a snapshot is verified is not kept; the next to stage it reads it again",
            action="stamp_unkept",
            reason=str(error),
        )


def _is_stamped(folder: Path, stamp: Path, code: bool) -> bool:
    stamped = _stamped(stamp)
    return stamped is not None and folder.is_dir() and _state(folder) | _rules(code) == stamped


def _state(folder: Path) -> State:
    return {
        path: [state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        for path, state in listing(folder).items()
    }


def _stamped(stamp: Path) -> State | None:
    try:
        state: State = json_of(stamp.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return state if isinstance(state, dict) else None


def _let_clock_tick(state: State) -> None:
    """A file changed this very tick could change again unseen: let the tick pass before hashing."""
    newest = max(times[4] for times in state.values()) if state else 0
    left = newest + CLOCK_GRAIN_NS - time.time_ns()
    if 0 < left <= CLOCK_GRAIN_NS:
        time.sleep(left / 1e9)
