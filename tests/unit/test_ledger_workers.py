"""A living worker is never taken for dead; a dead one is found after its grace."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from router.ledger.workers import GRACE_SECONDS, Workers, files_held


def test_dead_only_without_connection_after_grace_and_with_no_file_held() -> None:
    held: set[str] = set()
    workers = Workers(lambda: held)
    workers.arrived("a")
    assert workers.dead(["a"], now=100.0) == set()
    workers.left("a", now=100.0)
    assert workers.dead(["a"], now=100.0 + GRACE_SECONDS - 0.01) == set()
    held.add("a.7.jsonl")
    assert workers.dead(["a"], now=110.0) == set(), "a process holds its file"
    held.clear()
    assert workers.dead(["a"], now=110.5) == set(), "asked again only after another grace"
    assert workers.dead(["a"], now=113.0) == {"a"}


def test_files_found_at_the_start_get_a_grace_from_then() -> None:
    workers = Workers(lambda: set())
    assert workers.dead(["a"], now=50.0) == set()
    assert workers.dead(["a"], now=50.0 + GRACE_SECONDS) == {"a"}
    workers.arrived("a")
    assert workers.dead(["a"], now=60.0) == set(), "it has come back"


def test_a_second_connection_counts_until_both_are_gone() -> None:
    workers = Workers(lambda: set())
    workers.arrived("a")
    workers.arrived("a")
    workers.left("a", now=0.0)
    assert workers.dead(["a"], now=100.0) == set()
    workers.left("a", now=100.0)
    assert workers.dead(["a"], now=200.0) == {"a"}


def test_a_file_another_process_holds_open_is_found(tmp_path: Path) -> None:
    file = tmp_path / "w.1.jsonl"
    code = f"import sys; f = open({str(file)!r}, 'ab'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"open\n"
        assert files_held(tmp_path) == {"w.1.jsonl"}
        process.communicate(b"")
    assert files_held(tmp_path) == set()
