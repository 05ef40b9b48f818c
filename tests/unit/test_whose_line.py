"""A log that several replicas write to is told apart by what each of their processes says first."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer

from pilotlight.cli.talk import logs
from pilotlight.settings import Settings, load
from runtime.serving.log_marks import EVENT, of_replica, replicas_in, say


def first(replica_id: str, pid: int) -> bytes:
    return json.dumps({"event": EVENT, "replica_id": replica_id, "pid": pid}).encode() + b"\n"


def line(pid: int, text: str) -> bytes:
    return f"(EngineCore pid={pid}) INFO 11-27 04:36:44 [x.py:1] {text}\n".encode()


LOG = [
    b"of a release before\n", line(9, "nobody's"), first("r1a", 1), b"r1a's, without a pid\n", first("r2b", 2), first("r1a", 11),
    line(11, "r1a's core"), b"a line of its traceback\n", line(2, "r2b's"), line(1, "r1a's"), line(77, "a stranger's"),
    first("r3c", 1), line(1, "r3c's: the number was free again"), b'{"event": "replica process"}\n', b"{half\n",
]  # fmt: skip


def test_each_line_is_of_the_replica_whose_process_wrote_it() -> None:
    assert list(of_replica(LOG, "r1a")) == [LOG[2], LOG[3], LOG[5], LOG[6], LOG[7], LOG[9]]
    assert list(of_replica(LOG, "r2")) == [LOG[4], LOG[8]]
    assert list(of_replica(LOG, "r3")) == LOG[11:]
    assert not list(of_replica(LOG, "r4")) and replicas_in(LOG) == ["r1a", "r2b", "r3c"]


def test_a_process_says_whose_it_is_and_a_full_disk_ends_nothing(capfdbinary: pytest.CaptureFixture[Any]) -> None:
    say("r9", "engine core")
    assert replicas_in(capfdbinary.readouterr().out.splitlines(keepends=True)) == ["r9"]
    kept, full = os.dup(1), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    try:
        say("r9", "engine core")
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(full)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = load(state_dir=tmp_path / "state")
    found.paths.make()
    (found.paths.endpoint_logs / "chat.log.1").write_bytes(b"".join(LOG[:5]))
    (found.paths.endpoint_logs / "chat.log").write_bytes(b"".join(LOG[5:]))
    return found


def test_the_log_of_one_replica_is_shown_through_what_was_cut_off(
    settings: Settings, capfdbinary: pytest.CaptureFixture[Any]
) -> None:
    logs.show_log(settings, "chat", process=False, follow=False, since=None, replica="r1")
    assert capfdbinary.readouterr().out == b"".join([LOG[2], LOG[3], LOG[5], LOG[6], LOG[7], LOG[9]])


def test_a_replica_that_wrote_nothing_is_told_with_those_that_did(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit):
        logs.show_log(settings, "chat", process=False, follow=False, since=None, replica="r7")
    assert "no replica r7 in" in (said := capsys.readouterr().err) and "r3c, r2b, r1a" in said
