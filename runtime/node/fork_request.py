"""The order to fork a replica: where its files lie, how large its cache is, which canary it has. Step 8.

It also has the keys that name what a node keeps for a revision, its canary's record and its baked copy. The failure to
survive is a canary that differed: `distrust` removes what may be wrong, and touches nothing that somebody writes now.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path

from pilotlight import cgroups
from pilotlight.settings import Paths, RuntimeSettings
from runtime.argument_names import executes_or_opens
from runtime.control import Fork
from runtime.errors import NotAllowed
from runtime.loader.bake import lock_of, stamp_of
from runtime.node.kv_cache import Sizing
from runtime.node.replica_record import ReplicaRecord
from runtime.node.staging import Staged
from runtime.tasks import canary_of
from runtime.wire import EngineEnvironment, Start
from snapshots.manifest import folder_name
from snapshots.singleflight import alone

COPY_ARGUMENTS = ("dtype", "hf-overrides", "runner", "convert")  # of the engine: another value, another baked copy


def order(record: ReplicaRecord, *, staged: Staged, sizing: Sizing, journal: Path, environment: EngineEnvironment, paths: Paths,
          settings: RuntimeSettings) -> Fork:  # fmt: skip
    """Raises NotAllowed for engine arguments that this machine lets nobody set, whoever let them pass before."""
    start = record.start
    if reason := executes_or_opens(start.engine_args, settings.allow_engine_args):
        raise NotAllowed(reason)
    threads = settings.threads or cgroups.cores()
    return Fork(
        replica_id=start.replica_id,
        endpoint=start.endpoint,
        snapshot=str(staged.folder),
        task=start.task,
        engine_args=start.engine_args,
        slots=start.slots,
        folder=str(record.folder),
        baked=str(baked(paths, start.digest)) if staged.bakes else "",
        arriving="" if staged.verified.done() else str(staged.arriving),
        journal=str(journal),
        canary=str(paths.canaries / f"{canary_key(start, environment, threads)}.json"),
        log=str(paths.endpoint_logs / f"{start.endpoint}.log"),
        threads=threads,
        kv_cache_bytes=sizing.kv_cache_bytes,
        max_model_len=sizing.max_model_len,
        asked_at=time.monotonic(),
        parks=start.parks,
        plain=start.plain,
        allow=start.allow,
        media_hosts=start.media_hosts,
    )


def copy_key(start: Start, engine_version: str) -> str:
    """All that decides which baked copy a replica on this node looks for."""
    args = {name.replace("_", "-"): value for name, value in start.engine_args.items()}
    return " ".join([engine_version, start.task, *(f"{args.get(name, '')}" for name in COPY_ARGUMENTS)])


def canary_key(start: Start, environment: EngineEnvironment, threads: int) -> str:
    """Everything that may change an answer: the question, the snapshot, the engine, its arguments, how many threads
    sum.
    """
    deciding = [
        *canary_of(start.task),
        start.digest,
        environment.model_dump(),
        start.task,
        start.engine_args,
        threads,
    ]
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:24]


def baked(paths: Paths, digest: str) -> Path:
    """The folder of a snapshot's baked copies. Raises NotStored where it is not a digest."""
    return paths.baked / folder_name(digest)


def distrust(paths: Paths, digest: str) -> None:
    """A replica of this snapshot answered otherwise than recorded: its baked copies go, and the next to stage it reads
    every byte.

    Those that run have the copies mapped and keep them. One that is being written stays, and so does the folder, for
    its writer has made it and is about to open its lock; a canary tells about that copy too. Blocks. Raises OSError,
    NotStored.
    """
    folder = baked(paths, digest)
    for entry in list(folder.iterdir()) if folder.is_dir() else ():
        if entry.suffix == ".safetensors":
            with alone(lock_of(entry)):  # not between the two files of a copy that is just finished
                stamp_of(entry).unlink(missing_ok=True)
                entry.unlink(missing_ok=True)
        elif entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.suffix not in (".new", ".lock", ".stamp"):
            entry.unlink(missing_ok=True)
    (paths.staged / f"{folder_name(digest)}.stamp").unlink(missing_ok=True)
