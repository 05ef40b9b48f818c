"""A living worker is never taken for dead: the kernel's lock says so, and of the release before, its connection and its
pid.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from router.ledger.tail import Tail
from router.ledger.worker_locks import OLD_GRACE_SECONDS, Workers, is_alive
from tests.ledger_lines import line, opened, sealed


class Kernel:
    """Locks and processes, as the test says."""

    def __init__(self) -> None:
        self.locked, self.lockless, self.pids = set[str](), set[str](), set[int]()
        self.workers = Workers(
            locked=self.locked.__contains__,
            keeps_locks=lambda name: name not in self.lockless,
            is_running=self.pids.__contains__,
        )


def test_who_holds_a_lock_lives_and_who_holds_none_is_dead_at_once() -> None:
    kernel = Kernel()
    kernel.locked.add("a")
    assert kernel.workers.dead(["a", "b"], now=0.0) == {"b"}
    kernel.workers.arrived("a", 7)
    kernel.workers.left("a", now=0.0)
    assert kernel.workers.dead(["a"], now=1e6) == set(), "without a connection for ever"
    kernel.locked.clear()
    assert kernel.workers.dead(["a"], now=1e6) == {"a"}


def test_one_of_the_release_before_lives_while_it_is_connected_or_its_process_is_there() -> None:
    kernel = Kernel()
    kernel.lockless.add("a")
    kernel.pids.add(7)
    kernel.workers.arrived("a", 7)
    assert kernel.workers.dead(["a"], now=1e6) == set()
    kernel.workers.left("a", now=1e6)
    assert kernel.workers.dead(["a"], now=1e6 + OLD_GRACE_SECONDS) == set(), "its process is there"
    kernel.pids.clear()
    assert kernel.workers.dead(["a"], now=1e6 + OLD_GRACE_SECONDS - 1) == set(), (
        "it may run where we cannot see its process"
    )
    assert kernel.workers.dead(["a"], now=1e6 + OLD_GRACE_SECONDS) == {"a"}


def test_one_of_the_release_before_that_never_came_has_its_time_from_the_first_look() -> None:
    kernel = Kernel()
    kernel.lockless.add("a")
    assert kernel.workers.dead(["a"], now=50.0) == set()
    assert kernel.workers.dead(["a"], now=50.0 + OLD_GRACE_SECONDS) == {"a"}
    kernel.workers.arrived("a", 7)
    assert kernel.workers.dead(["a"], now=500.0) == set(), "it has come after all"


def test_a_second_connection_counts_until_both_are_gone() -> None:
    kernel = Kernel()
    for _ in range(2):
        kernel.workers.arrived("a", 7)
    kernel.workers.left("a", now=0.0)
    assert kernel.workers.dead(["a"], now=100.0) == set()
    kernel.workers.left("a", now=100.0)
    assert kernel.workers.dead(["a"], now=100.0) == {"a"}


def test_a_lock_is_seen_while_its_process_lives_and_not_after_its_kill(tmp_path: Path) -> None:
    file = tmp_path / "w.1.jsonl"
    code = f"import fcntl, sys; f = open({str(file)!r}, 'ab'); fcntl.flock(f, fcntl.LOCK_EX); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"open\n"
        tail = Tail(tmp_path)
        tail.scan()
        assert tail.file("w.1.jsonl") and tail.is_locked("w")
        process.kill()
    assert not tail.is_locked("w") and not is_alive(process.pid) and is_alive(os.getpid())


def test_a_worker_that_rotates_between_two_looks_is_not_taken_for_dead(tmp_path: Path) -> None:
    """The file we know is unlocked by now, the next one has its name and its lock."""
    tail = Tail(tmp_path)
    (tmp_path / "w.1.jsonl").write_bytes(sealed(opened("a")))
    tail.scan()
    with open(tmp_path / "w.2.jsonl", "ab") as following:
        fcntl.flock(following, fcntl.LOCK_EX)
        assert [file.number for file in tail.of_worker("w")] == [1]
        assert tail.is_locked("w")
    assert not tail.is_locked("w")


def test_a_release_is_known_by_its_lines(tmp_path: Path) -> None:
    tail = Tail(tmp_path)
    (tmp_path / "old.1.jsonl").write_bytes(line(opened("a")))
    (tmp_path / "new.1.jsonl").write_bytes(sealed(opened("a")))
    for file in tail.scan():
        assert len(tail.read(file).records) == 1
    assert (tail.keeps_locks("old"), tail.keeps_locks("new"), tail.keeps_locks("none")) == (False, True, False)
