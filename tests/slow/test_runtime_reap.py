"""Leave nothing behind, and signal nobody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

from runtime.reap import SHARED_MEMORY, Identity, clean, kill_session, reap_leftovers, remember, shared_memory_prefix
from tests.integration.system import wait_until

FAMILY = """
import os, sys, time
if os.fork() == 0:
    time.sleep(60)
print("up", flush=True)
if sys.argv[1] == "leave":
    os._exit(0)
time.sleep(60)
"""


def family(mode: str) -> tuple[subprocess.Popen[str], Identity]:
    process = subprocess.Popen(
        [sys.executable, "-c", FAMILY, mode], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    identity = Identity.of(process.pid)
    assert identity is not None and process.stdout is not None
    process.stdout.readline()
    return process, identity


def gone(session: int) -> bool:
    """Every member of the session is dead: its last writer closed the pipe they share."""
    from runtime.reap import session_members

    return session_members(session) == []


def test_a_session_is_ended_even_when_its_leader_is_gone() -> None:
    process, identity = family("leave")
    process.wait()
    assert not identity.alive()
    kill_session(identity)
    assert process.stdout is not None
    # the end of file comes when the last member closes its files, which is just before it is gone
    process.stdout.read()
    wait_until(lambda: gone(identity.pid), 5, "the session is gone")


def test_a_pid_that_is_somebody_elses_now_is_left_alone() -> None:
    process, identity = family("stay")
    try:
        kill_session(Identity(identity.pid, identity.start_time - 1))
        assert process.poll() is None and identity.alive()
    finally:
        kill_session(identity)
        process.wait()
    assert not identity.alive()


def test_leftovers_of_a_dead_agent_are_ended_and_removed(tmp_path: Path) -> None:
    process, identity = family("stay")
    replica_id = f"t{uuid.uuid4().hex[:8]}"
    folder = tmp_path / replica_id
    folder.mkdir()
    remember(folder, identity)
    segment = SHARED_MEMORY / f"{shared_memory_prefix(replica_id)}x"
    segment.write_bytes(b"x")
    assert reap_leftovers(tmp_path) == [replica_id]
    process.wait()
    assert not identity.alive() and not folder.exists() and not segment.exists()


def test_a_folder_without_identity_is_removed(tmp_path: Path) -> None:
    (tmp_path / "r1").mkdir()
    (tmp_path / "r2").mkdir()
    (tmp_path / "r2" / "identity.json").write_text(json.dumps({"pid": os.getpid()})[:-3])
    assert reap_leftovers(tmp_path) == ["r1", "r2"]
    assert list(tmp_path.iterdir()) == []


def test_another_replicas_shared_memory_stays(tmp_path: Path) -> None:
    mine, other = f"t{uuid.uuid4().hex[:8]}", f"t{uuid.uuid4().hex[:8]}"
    segment = SHARED_MEMORY / f"{shared_memory_prefix(other)}x"
    segment.write_bytes(b"x")
    try:
        clean(tmp_path / mine, mine)
        assert segment.exists()
    finally:
        segment.unlink()
