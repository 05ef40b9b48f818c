"""Is a stored snapshot, byte for byte, what its digest says? Reads all of it; `stage.py` remembers the answer. Step 9.

It must survive a folder somebody else wrote to: a file changed, cut, added, removed or replaced by a link is refused by
name.
"""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from snapshots.errors import TamperedError
from snapshots.manifest import MANIFEST, Manifest, SnapshotFile, digest_of_folder, read_manifest

THREADS = 4  # hashing releases the interpreter lock
REMEDY = "remove the snapshot and pack it again"


def verify(folder: Path) -> Manifest:
    """Check a snapshot's folder against the digest in its name. Raises TamperedError, which names the file, and
    OSError.
    """
    digest = digest_of_folder(folder.name)
    if digest is None:
        raise TamperedError(f"{folder} is not a snapshot: its name is not a digest")
    manifest = read_manifest(folder, digest)
    expected = {MANIFEST, *(file.path for file in manifest.files)}
    found = set(listing(folder))
    if wrong := sorted(expected ^ found):
        raise TamperedError(
            f"{folder / wrong[0]} "
            + ("is missing" if wrong[0] in expected else "does not belong to the snapshot")
            + f": {REMEDY}"
        )
    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(lambda file: _check(folder, file), sorted(manifest.files, key=lambda file: -file.size)):
            pass
    return manifest


def listing(folder: Path) -> dict[str, os.stat_result]:
    """Every file below, by its path with /. Raises TamperedError for what is neither file nor folder, OSError."""
    found: dict[str, os.stat_result] = {}
    pending = [(folder, "")]
    while pending:
        parent, prefix = pending.pop()
        for entry in os.scandir(parent):
            state = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(state.st_mode):
                pending.append((Path(entry.path), f"{prefix}{entry.name}/"))
            elif stat.S_ISREG(state.st_mode):
                found[prefix + entry.name] = state
            else:
                raise TamperedError(f"{entry.path} is neither file nor folder: {REMEDY}")
    return found


def _check(folder: Path, file: SnapshotFile) -> None:
    path = folder / file.path
    with path.open("rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size != file.size:
            raise TamperedError(f"{path} has {size} bytes instead of {file.size}: {REMEDY}")
        if hashlib.file_digest(stream, "sha256").hexdigest() != file.sha256:
            raise TamperedError(f"{path} does not have the content its manifest says: {REMEDY}")
