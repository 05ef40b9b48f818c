"""A node's disk: what goes to make room, and what never does; one fetch however many ask; what failed blocks nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pilotlight.settings import load
from runtime import disk
from runtime.__main__ import standby_environ
from runtime.disk import Disk, Item, choose, room
from runtime.running import adding_up
from runtime.staging import Staging
from runtime.wire import Phase
from snapshots.errors import NotStored, StoreFull, TamperedError
from snapshots.manifest import CHUNK, folder_name
from snapshots.pack import pack
from snapshots.stage import stage
from snapshots.store.disk import digests, remove_folder
from tests.unit.test_snapshots import safetensors, write

SIZE = 100_000  # bytes of the weights of each snapshot


def item(kind: str, digest: str, used_at: float, size: int = 1) -> Item:
    return Item(kind, digest, Path(digest), size, used_at)  # type: ignore[arg-type]


def test_the_longest_unused_goes_first_and_the_cheapest_of_equals() -> None:
    items = [item("snapshot", "a", 2), item("baked", "a", 2), item("snapshot", "b", 1), item("partial", "c", 2), item("baked", "d", 0)]
    assert [(gone.kind, gone.digest) for gone in choose(items, {"d"})] == [
        ("snapshot", "b"), ("baked", "a"), ("partial", "c"), ("snapshot", "a"),
    ]  # fmt: skip


def test_room_is_the_budgets_and_the_disks() -> None:
    assert room(max_bytes=0, taken=10**12, free=disk.RESERVE_BYTES + 5) == 5
    assert room(max_bytes=100, taken=60, free=10**12) == 40
    assert room(max_bytes=100, taken=60, free=disk.RESERVE_BYTES + 5) == 5


class Node:
    """A node's folders, and an origin that is a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.origin, self.store, self.node_dir, self.baked = (
            folder, folder / "origin", folder / "store", folder / "node", folder / "baked",
        )  # fmt: skip
        for made in (self.store, self.node_dir, self.baked):
            made.mkdir()
        self.used: set[str] = set()
        self.opened: list[Staging] = []

    def model(self, name: str, store: Path) -> str:
        content = safetensors([name], SIZE)
        return pack(
            write(
                self.folder / name,
                {"config.json": {"architectures": ["LlamaForCausalLM"]}, "tokenizer.json": {}, "model.safetensors": content},
            ),
            store,
        ).digest

    def stored(self) -> set[str]:
        return {entry.name for entry in self.store.iterdir()} - {".lock"}

    def bake(self, digest: str, size: int = SIZE) -> Path:
        folder = self.baked / folder_name(digest)
        folder.mkdir()
        (folder / "key.safetensors").write_bytes(bytes(size))
        return folder

    def staging(self, *, origin: bool = True, max_bytes: int = 0) -> Staging:
        url = str(self.origin) if origin else ""
        staging = Staging(
            store=self.store, node_dir=self.node_dir, baked=self.baked, origin=url, max_bytes=max_bytes, in_use=lambda: self.used
        )
        staging.start()
        self.opened.append(staging)
        return staging


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    yield node
    for staging in node.opened:
        staging.close()
    for parent, _, _ in os.walk(tmp_path):
        Path(parent).chmod(0o700)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("runtime.staging.CALM_SECONDS", 0.0)
    yield


async def durable(staging: Staging, digest: str) -> None:
    while digest in staging.fetching():
        await asyncio.sleep(0.001)


async def test_what_is_only_at_the_origin_is_fetched_once(node: Node) -> None:
    digest = node.model("a", node.origin)
    staging = node.staging()
    came = await asyncio.gather(*(staging.bring(digest) for _ in range(5)))
    await asyncio.gather(*(each.whole for each in came))
    assert {each.folder for each in came} == {node.node_dir / folder_name(digest)}
    assert all(each.fetched for each in came)
    await durable(staging, digest)
    assert (came[0].folder / "config.json").exists()
    assert came[0].folder.resolve() == node.store / folder_name(digest)
    again = await staging.bring(digest)
    assert (again.folder, again.fetched, again.arriving) == (node.store / folder_name(digest), False, None)
    assert node.stored() == {folder_name(digest)}


async def test_what_is_nowhere_and_what_lies_fail_and_block_nothing(node: Node) -> None:
    with pytest.raises(NotStored, match="snapshot pack"):
        await node.staging(origin=False).bring("sha256:" + "a" * 64)
    digest = node.model("a", node.origin)
    staging = node.staging()
    with pytest.raises(NotStored, match="push it there first"):
        await staging.bring("sha256:" + "a" * 64)
    weights = node.origin / folder_name(digest) / "model.safetensors"
    good = weights.read_bytes()
    weights.chmod(0o600)
    weights.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    with pytest.raises(TamperedError, match=r"model\.safetensors has wrong bytes from 0"):
        await staging.bring(digest)
    weights.write_bytes(good)
    await (await staging.bring(digest)).whole


async def test_the_longest_unused_is_evicted_and_what_is_in_use_is_not(node: Node) -> None:
    old, new, wanted = (node.model(name, node.origin) for name in ("old", "new", "wanted"))
    staging = node.staging(max_bytes=600_000)  # snapshots take a little more than 110 kB, copies 100
    for digest in (old, new):
        await (await staging.bring(digest)).whole
        await durable(staging, digest)
        node.bake(digest)
    os.utime(node.node_dir / f"{folder_name(old)}.used", (1, 1))
    node.used = {old}
    await (await staging.bring(wanted)).whole
    await durable(staging, wanted)
    assert set(digests(node.store)) >= {old, wanted}
    assert not (node.baked / folder_name(new)).exists()
    assert (node.baked / folder_name(old)).exists()
    node.used = set()
    staging.close()
    again = node.staging(max_bytes=600_000)  # what was used last survives a restart
    await again.make_room(350_000)
    assert old not in digests(node.store)
    assert wanted in digests(node.store)


async def test_what_no_other_store_has_is_never_evicted(node: Node) -> None:
    node.origin.mkdir()
    only = node.model("only", node.store)
    copy = node.bake(only)
    staging = node.staging(max_bytes=220_000)
    with pytest.raises(StoreFull, match=r"budget of 0\.00 GB.*raise snapshots\.max_bytes"):
        await staging.make_room(200_000)
    assert digests(node.store) == [only]
    assert not copy.exists()  # it can be made again
    without = node.staging(origin=False, max_bytes=1)
    with pytest.raises(StoreFull):
        await without.make_room(1)
    assert digests(node.store) == [only]


async def test_without_room_for_a_copy_there_is_none_but_it_starts(node: Node) -> None:
    digest = node.model("a", node.origin)
    staged = await node.staging(max_bytes=150_000).bring(digest)
    node.used = {digest}
    await staged.whole
    assert not staged.bakes


async def test_a_full_disk_leaves_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = node.model("a", node.origin)
    staging = node.staging()
    monkeypatch.setattr("runtime.staging.free", lambda folder: disk.RESERVE_BYTES + 1000)
    with pytest.raises(StoreFull, match=r"do not fit the node's disk.*use another disk"):
        await staging.bring(digest)
    assert node.stored() == set()
    monkeypatch.undo()
    await (await staging.bring(digest)).whole


async def test_what_another_process_pulls_is_left_alone(node: Node) -> None:
    import fcntl

    partial = node.store / f".pull-{folder_name('sha256:' + 'b' * 64)}"
    partial.mkdir()
    (partial / "journal").write_bytes(bytes(CHUNK))
    held = os.open(f"{partial}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    staging = node.staging(max_bytes=CHUNK)
    with pytest.raises(StoreFull):
        await staging.make_room(1000)
    assert partial.exists()
    os.close(held)
    await staging.make_room(1000)
    assert node.stored() == set()


def test_copies_of_snapshots_that_are_gone_go_too(tmp_path: Path) -> None:
    node = Node(tmp_path)
    here, gone = node.model("here", node.store), "sha256:" + "c" * 64
    stage(node.store, here, node.node_dir)
    kept, orphan = node.bake(here), node.bake(gone)
    (node.node_dir / f"{folder_name(gone)}.stamp").write_text("{}")
    (node.node_dir / folder_name(gone)).symlink_to(tmp_path)
    Disk(store=node.store, node_dir=node.node_dir, baked=node.baked).sweep()
    assert kept.exists()
    assert not orphan.exists()
    assert [entry.name for entry in node.node_dir.iterdir()] == [f"{folder_name(here)}.stamp"]
    assert [entry.name for entry in node.baked.iterdir()] == [folder_name(here)]
    remove_folder(node.store)


def test_phases_beside_the_fetch_cost_nothing_and_all_add_up() -> None:
    measured = [
        Phase(name="spawn", at=10.2, seconds=0.1),
        Phase(name="fetch", at=10.0, seconds=2.0),
        Phase(name="load", at=10.5, seconds=1.8),
        Phase(name="init", at=10.3, seconds=2.2),
        Phase(name="canary", at=12.5, seconds=0.25),
    ]
    told = {phase.name: round(phase.seconds, 6) for phase in adding_up(measured)}
    assert told == {"fetch": 2.0, "spawn": 0.0, "load": 0.3, "init": 0.2, "canary": 0.25}
    assert sum(told.values()) == pytest.approx(12.75 - 10.0)


def test_phases_of_a_staged_start_are_as_they_were() -> None:
    measured = [
        Phase(name="fetch", at=10.0, seconds=0.1),
        Phase(name="spawn", at=10.1, seconds=0.1),
        Phase(name="load", at=10.3, seconds=0.5),
        Phase(name="init", at=10.2, seconds=0.8),
    ]
    assert {phase.name: round(phase.seconds, 6) for phase in adding_up(measured)} == {"fetch": 0.1, "spawn": 0.1, "init": 0.3, "load": 0.5}


def test_an_engine_never_sees_the_keys_of_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert not [name for name in standby_environ(load(state_dir=tmp_path), "cpu") if name.startswith("AWS_")]
