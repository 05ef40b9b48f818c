"""Who a pid means: the living, the dead that nobody has buried, and names made to deceive."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from pilotlight.processes import ZOMBIE, everybody, look, start_time


def test_a_process_is_seen_until_it_is_buried() -> None:
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    seen = look(child.pid)
    assert seen is not None and (seen.parent, seen.session) == (os.getpid(), child.pid)
    assert start_time(child.pid) == seen.start_time and dict(everybody())[child.pid].start_time == seen.start_time
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    dead = look(child.pid)
    assert dead is not None and dead.state == ZOMBIE and start_time(child.pid) is None
    child.wait()
    assert look(child.pid) is None and start_time(child.pid) is None


def test_a_name_with_brackets_and_blanks_is_a_name(tmp_path: Path) -> None:
    program = tmp_path / "a) Z 1 (b"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([program, "60"])
    seen = look(child.pid)
    assert seen is not None and (seen.state, seen.parent) != (ZOMBIE, 1) and seen.parent == os.getpid()
    child.kill()
    child.wait()
