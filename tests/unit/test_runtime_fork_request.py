"""What is distrusted goes; what another is about to write, or writes, stays."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from pilotlight.settings import Paths, RuntimeSettings
from runtime.control import Fork
from runtime.errors import NotAllowed
from runtime.loader.bake import Baking, lock_of, plan, usable
from runtime.node.fork_request import baked, distrust, order
from runtime.node.kv_cache import Sizing
from runtime.node.replica_record import ReplicaRecord
from runtime.node.staging import Staged
from runtime.wire import EngineEnvironment, Start
from snapshots.singleflight import alone

DIGEST = "sha256:" + "a" * 64
LAYOUT = plan([("w", "BF16", (32,), 64)])


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    for folder in (paths.staged, paths.baked):
        folder.mkdir()
    return paths


def test_copies_and_what_lies_with_them_go_and_the_bytes_are_read_anew(paths: Paths) -> None:
    folder, stamp = baked(paths, DIGEST), paths.staged / f"{baked(paths, DIGEST).name}.stamp"
    distrust(paths, DIGEST)  # nothing is there
    folder.mkdir()
    Baking(folder / "key.safetensors", LAYOUT).finish()
    (folder / "cache-1").mkdir()
    (folder / "cache-1" / "graph").touch()
    (folder / "known-1").touch()
    stamp.touch()
    distrust(paths, DIGEST)
    assert list(folder.iterdir()) == []
    assert not stamp.exists()


def test_a_baker_that_has_made_the_folder_finds_it_when_it_opens_its_lock(paths: Paths) -> None:
    file = baked(paths, DIGEST) / "key.safetensors"
    file.parent.mkdir()
    distrust(paths, DIGEST)
    with alone(lock_of(file)):
        baking = Baking(file, LAYOUT)
        distrust(paths, DIGEST)
        baking.finish()
        assert usable(file)


def test_it_waits_for_who_holds_the_lock_of_a_copy(paths: Paths) -> None:
    file = baked(paths, DIGEST) / "key.safetensors"
    file.parent.mkdir()
    Baking(file, LAYOUT).finish()
    with alone(lock_of(file)):
        thread = threading.Thread(target=distrust, args=(paths, DIGEST))
        thread.start()
        thread.join(0.01)
        assert usable(file)
    thread.join(10)
    assert not file.exists()


def test_nobody_has_a_node_execute_or_open_what_its_settings_do_not_allow(paths: Paths) -> None:
    start = Start(
        replica_id="r", revision_id="rev", endpoint="e", digest=DIGEST, task="generate", slots=1, deadline_seconds=9.0, epoch=1, sequence=1,
        engine_args={"chat-template": "/etc/passwd"},
    )  # fmt: skip
    staged = Staged(paths.staged, asyncio.new_event_loop().create_future())

    def ordered(**settings: Any) -> Fork:
        return order(
            ReplicaRecord(start, paths.state, 0.0), staged=staged, sizing=Sizing(1, 1), journal=paths.journal, paths=paths,
            environment=EngineEnvironment(engine="vllm", version="1", device="cpu"), settings=RuntimeSettings(**settings),
        )  # fmt: skip

    with pytest.raises(
        NotAllowed, match=r"chat-template: it would open files.*runtime\.allow_engine_args, chat-template"
    ):
        ordered()
    assert ordered(allow_engine_args="chat-template, lora-modules").engine_args == start.engine_args
