"""Leave nothing behind: the processes, shared memory and folder of one replica, however it ended.

Each replica is a session of its own: killpg reaches its engine core, even when its leader is gone. It has a
shared-memory prefix and a run folder of its own. A pid alone is not an identity, because the kernel reuses it:
`Identity` adds the start time, and nothing is signalled that does not match. The identity lies in the run folder, so
that an agent that comes back after kill -9 finds and ends what its predecessor left.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

from pilotlight.processes import ZOMBIE, Seen, everybody, start_time

SHARED_MEMORY = Path("/dev/shm")
IDENTITY_FILE = "identity.json"


@dataclass(frozen=True)
class Identity:
    """A process for good: a pid alone is used again."""

    pid: int
    start_time: int  # clock ticks since boot

    @staticmethod
    def of(pid: int) -> Identity | None:
        """Who has this pid now; None when nobody does."""
        started = start_time(pid)
        return None if started is None else Identity(pid, started)

    def alive(self) -> bool:
        return start_time(self.pid) == self.start_time


def session_members(session: int) -> list[int]:
    """Living processes of a session, its leader or not."""
    return [pid for pid, seen in everybody() if seen.session == session and seen.state != ZOMBIE]


def shared_memory_prefix(replica_id: str) -> str:
    return f"pl{replica_id}_"


def remember(folder: Path, identity: Identity) -> None:
    (folder / IDENTITY_FILE).write_text(json.dumps(asdict(identity)))


def kill_session(identity: Identity) -> None:
    """End every process of the session that `identity` leads or led. A session id is not reused while a member
    lives.
    """
    leader = start_time(identity.pid)
    if leader is not None and leader != identity.start_time:
        return  # the pid is somebody else's now; its session is too
    try:
        os.killpg(identity.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    for pid in session_members(identity.pid):  # a member that made a process group of its own
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def clean(folder: Path, replica_id: str) -> None:
    """Unlink the replica's shared memory by prefix and remove its run folder."""
    for segment in SHARED_MEMORY.glob(f"{shared_memory_prefix(replica_id)}*"):
        segment.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def reap_leftovers(replicas: Path) -> list[str]:
    """End and remove everything in the folder of run folders: what an agent killed by -9 left. Returns the replica
    ids.
    """
    found = []
    for folder in sorted(replicas.iterdir()) if replicas.is_dir() else []:
        try:
            kill_session(Identity(**json.loads((folder / IDENTITY_FILE).read_text())))
        except (OSError, ValueError, TypeError):
            # no (whole) identity: nothing was forked, the disk had no room for it, or the fork ended with its control
            # socket
            pass
        clean(folder, folder.name)
        found.append(folder.name)
    return found


def collect_orphans() -> None:
    """SIGCHLD in an agent: collect what it inherited (an engine core whose API process died, a replica whose standby
    did).
    """
    for pid, seen in everybody():
        if _is_orphan_of_ours(pid, seen):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _is_orphan_of_ours(pid: int, seen: Seen) -> bool:
    """A dead child of this process. Standbys are children too, but their own watcher waits for them."""
    return seen.state == ZOMBIE and seen.parent == os.getpid() and seen.session != pid
