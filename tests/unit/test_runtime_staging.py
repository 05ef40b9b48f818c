"""A node's disk: what goes to make room, and what never does; one fetch however many ask; what failed blocks
nothing.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pilotlight.settings import load
from runtime.control import LoadOutcome
from runtime.node import disk
from runtime.node.disk import Disk, Item, choose, room
from runtime.node.replica_record import adding_up
from runtime.node.staging import Staging
from runtime.node.standby_environment import standby_environ
from runtime.wire import Phase
from snapshots.errors import NotStored, StoreFull, TamperedError
from snapshots.manifest import CHUNK, folder_name
from snapshots.pack import pack
from snapshots.partial import Partial
from snapshots.pins import pin, pinned, unpin
from snapshots.stage import stage
from snapshots.store.disk import digests, remove_folder
from tests.model_folders import TOKENIZER, safetensors, write

SIZE = 100_000  # bytes of the weights of each snapshot
COPY = "engine 1 bfloat16"  # which baked copy is wanted


def item(kind: str, digest: str, used_at: float, size: int = 1) -> Item:
    return Item(kind, digest, Path(digest), size, used_at)  # type: ignore[arg-type]


def test_the_longest_unused_goes_first_and_the_cheapest_of_equals() -> None:
    items = [
        item("snapshot", "a", 2),
        item("baked", "a", 2),
        item("snapshot", "b", 1),
        item("partial", "c", 2),
        item("baked", "d", 0),
    ]
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
                {
                    "config.json": {"architectures": ["LlamaForCausalLM"]},
                    "tokenizer.json": TOKENIZER,
                    "model.safetensors": content,
                },
            ),
            store,
        ).digest

    def disk(self) -> Disk:
        return Disk(store=self.store, node_dir=self.node_dir, baked=self.baked)

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
            store=self.store,
            node_dir=self.node_dir,
            baked=self.baked,
            origin=url,
            max_bytes=max_bytes,
            in_use=lambda: self.used,
        )
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
    monkeypatch.setattr("runtime.node.downloads.CALM_SECONDS", 0.0)
    yield


async def durable(staging: Staging, digest: str) -> None:
    while digest in staging.fetching():
        await asyncio.sleep(0.001)


async def test_what_is_only_at_the_origin_is_fetched_once(node: Node) -> None:
    digest = node.model("a", node.origin)
    staging = node.staging()
    came = await asyncio.gather(*(staging.bring(digest) for _ in range(5)))
    await asyncio.gather(*(each.verified for each in came))
    assert {each.folder for each in came} == {node.node_dir / folder_name(digest)}
    assert all(each.fetched for each in came)
    await durable(staging, digest)
    assert (came[0].folder / "config.json").exists()
    assert came[0].folder.resolve() == node.store / folder_name(digest)
    again = await staging.bring(digest)
    assert (again.folder, again.fetched, again.arriving) == (came[0].folder, False, None)
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
    await (await staging.bring(digest)).verified


async def test_the_longest_unused_is_evicted_and_what_is_in_use_is_not(node: Node) -> None:
    old, new, wanted = (node.model(name, node.origin) for name in ("old", "new", "wanted"))
    staging = node.staging(max_bytes=600_000)  # snapshots take a little more than 110 kB, copies 100
    for digest in (old, new):
        await (await staging.bring(digest)).verified
        await durable(staging, digest)
        node.bake(digest)
    os.utime(node.node_dir / f"{folder_name(old)}.used", (1, 1))
    node.used = {old}
    await (await staging.bring(wanted, COPY)).verified
    await durable(staging, wanted)
    assert set(digests(node.store)) >= {old, wanted}
    assert not (node.baked / folder_name(new)).exists()
    assert (node.baked / folder_name(old)).exists()
    node.used = set()
    staging.close()
    again = node.staging(max_bytes=600_000)  # what was used last survives a restart
    await again.room.make_room(350_000)
    assert old not in digests(node.store)
    assert wanted in digests(node.store)


async def test_what_no_other_store_has_is_never_evicted(node: Node) -> None:
    node.origin.mkdir()
    only = node.model("only", node.store)
    copy = node.bake(only)
    staging = node.staging(max_bytes=220_000)
    with pytest.raises(StoreFull, match=r"budget of 0\.00 GB.*raise snapshots\.max_bytes"):
        await staging.room.make_room(200_000)
    assert digests(node.store) == [only]
    assert not copy.exists()  # it can be made again
    without = node.staging(origin=False, max_bytes=1)
    with pytest.raises(StoreFull):
        await without.room.make_room(1)
    assert digests(node.store) == [only]


async def test_without_room_for_a_copy_there_is_none_but_it_starts(node: Node) -> None:
    digest = node.model("a", node.origin)
    staged = await node.staging(max_bytes=150_000).bring(digest, COPY)
    node.used = {digest}
    await staged.verified
    assert not staged.bakes


async def test_what_is_here_already_is_opened_by_the_same_path_as_what_is_fetched(node: Node) -> None:
    """Compile caches know a model by its path."""
    node.origin.mkdir()
    digest = node.model("a", node.store)
    for staging in (node.staging(), node.staging(origin=False)):
        for _ in range(2):
            staged = await staging.bring(digest)
            assert staged.folder == node.node_dir / folder_name(digest)
            assert staged.folder.resolve() == node.store / folder_name(digest)


async def two_of_which_one_has_a_copy(node: Node) -> tuple[Staging, str, str]:
    """A budget that both fill; and the two digests."""
    here, other = node.model("here", node.origin), node.model("other", node.origin)
    staging = node.staging(max_bytes=340_000)
    for digest in (here, other):
        await (await staging.bring(digest)).verified
        await durable(staging, digest)
    node.bake(other)
    node.used = {here}
    return staging, here, other


async def test_a_start_that_writes_no_copy_evicts_nothing_for_one(node: Node) -> None:
    staging, here, other = await two_of_which_one_has_a_copy(node)
    assert (await staging.bring(here)).bakes  # it may use the folder for what else is kept there
    assert (node.baked / folder_name(other)).exists()
    assert (await staging.bring(here, COPY)).bakes
    assert not (node.baked / folder_name(other)).exists()


async def test_a_copy_another_engine_wrote_is_none(node: Node) -> None:
    staging, here, other = await two_of_which_one_has_a_copy(node)
    node.bake(here, 0)
    staging.loaded(here, COPY, LoadOutcome.MAPPED)
    assert (await staging.bring(here, COPY)).bakes
    assert (node.baked / folder_name(other)).exists()
    again = node.staging(max_bytes=340_000)  # which copy is known survives a restart
    assert (await again.bring(here, COPY)).bakes
    assert (node.baked / folder_name(other)).exists()
    assert (await again.bring(here, "another engine")).bakes
    assert not (node.baked / folder_name(other)).exists()


async def test_a_snapshot_that_an_engine_takes_as_it_is_evicts_nothing_for_a_copy(node: Node) -> None:
    staging, here, other = await two_of_which_one_has_a_copy(node)
    staging.loaded(here, COPY, LoadOutcome.PLAIN_SNAPSHOT)
    assert (await staging.bring(here, COPY)).bakes
    assert (node.baked / folder_name(other)).exists()
    staging.loaded(here, COPY, LoadOutcome.PLAIN_START)  # says nothing new
    assert (await staging.bring(here, COPY)).bakes
    assert (node.baked / folder_name(other)).exists()


async def test_of_two_that_are_fetched_at_once_each_sees_what_the_other_was_promised(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room is taken only when both have been told whether there is any."""
    one, two = node.model("one", node.origin), node.model("two", node.origin)
    node.used = {one, two}
    staging, told, both = node.staging(max_bytes=200_000), list[str](), threading.Event()
    make_room, take = staging.room.make_room, Partial.allocate

    async def telling(size: int, of: tuple[disk.Kind, str] | None = None) -> None:
        try:
            await make_room(size, of)
        finally:
            told.append(str(of))
            both.set() if len(told) == 2 else None

    def when_both_were_told(partial: Partial) -> None:
        assert both.wait(10)
        take(partial)

    monkeypatch.setattr(staging.room, "make_room", telling)
    monkeypatch.setattr(Partial, "allocate", when_both_were_told)
    took = await asyncio.gather(*(staging.bring(digest) for digest in (one, two)), return_exceptions=True)
    assert [isinstance(each, StoreFull) for each in took].count(True) == 1, took
    assert sum(item.size for item in node.disk().items()) <= 200_000


async def test_room_for_a_copy_is_kept_until_it_is_written(node: Node) -> None:
    node.origin.mkdir()
    one, two = node.model("one", node.store), node.model("two", node.store)
    node.used = {one, two}
    staging = node.staging(max_bytes=380_000)  # both, and one copy
    assert (await staging.bring(one, COPY)).bakes
    assert (await staging.bring(one, COPY)).bakes  # one copy, however many want it
    assert not (await staging.bring(two, COPY)).bakes
    folder = node.bake(one, SIZE // 2)
    assert not (await staging.bring(two, COPY)).bakes  # half of it is taken, half still to be
    (folder / "key.safetensors").unlink()
    staging.loaded(one, COPY, LoadOutcome.PLAIN_START)
    assert (await staging.bring(two, COPY)).bakes
    assert not (await staging.bring(one, COPY)).bakes
    node.used = {one}  # the other died before it said anything
    assert (await staging.bring(one, COPY)).bakes


async def test_what_is_pinned_is_never_evicted(node: Node) -> None:
    kept, other = node.model("kept", node.origin), node.model("other", node.origin)
    staging = node.staging(max_bytes=450_000)
    for digest in (kept, other):
        await (await staging.bring(digest)).verified
        await durable(staging, digest)
        node.bake(digest)
    pin(node.node_dir, kept)
    pin(node.node_dir, kept)
    os.utime(node.node_dir / f"{folder_name(kept)}.used", (1, 1))
    again = node.staging(max_bytes=450_000)  # a pin survives a restart
    with pytest.raises(StoreFull, match=r"0\.00 GB are pinned: `pilotlight snapshot unpin DIGEST`"):
        await again.room.make_room(300_000)
    assert other in digests(node.store)  # it would not have helped
    await again.room.make_room(200_000)
    assert digests(node.store) == [kept]
    assert (node.baked / folder_name(kept)).exists()
    without_budget = node.staging()
    with pytest.raises(StoreFull, match=r"do not fit the node's disk, .*snapshot unpin DIGEST"):
        await without_budget.room.make_room(1 << 60)
    unpin(node.node_dir, kept)
    await again.room.make_room(450_000)
    assert digests(node.store) == []
    assert pinned(node.node_dir) == frozenset()


async def test_a_pin_set_while_room_is_made_counts(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = node.model("a", node.origin)
    staging = node.staging(max_bytes=150_000)
    await (await staging.bring(digest)).verified
    await durable(staging, digest)

    async def elsewhere(asked: str) -> bool:
        pin(node.node_dir, asked)
        return True

    monkeypatch.setattr(staging.room, "_is_elsewhere", elsewhere)
    with pytest.raises(StoreFull):
        await staging.room.make_room(100_000)
    assert digests(node.store) == [digest]


async def test_a_full_disk_leaves_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = node.model("a", node.origin)
    staging = node.staging()
    monkeypatch.setattr("runtime.node.disk_room.free", lambda folder: disk.RESERVE_BYTES + 1000)
    with pytest.raises(StoreFull, match=r"do not fit the node's disk.*use another disk"):
        await staging.bring(digest)
    assert node.stored() == set()
    monkeypatch.undo()
    await (await staging.bring(digest)).verified


async def test_what_another_process_pulls_is_left_alone(node: Node) -> None:
    import fcntl

    partial = node.store / f".pull-{folder_name('sha256:' + 'b' * 64)}"
    partial.mkdir()
    (partial / "journal").write_bytes(bytes(CHUNK))
    held = os.open(f"{partial}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    staging = node.staging(max_bytes=CHUNK)
    with pytest.raises(StoreFull):
        await staging.room.make_room(1000)
    assert partial.exists()
    os.close(held)
    await staging.room.make_room(1000)
    assert node.stored() == set()


def test_copies_of_snapshots_that_are_gone_go_too(tmp_path: Path) -> None:
    node = Node(tmp_path)
    here, gone = node.model("here", node.store), "sha256:" + "c" * 64
    stage(node.store, here, node.node_dir)
    kept, orphan = node.bake(here), node.bake(gone)
    (node.node_dir / f"{folder_name(gone)}.stamp").write_text("{}")
    pin(node.node_dir, gone)
    (node.node_dir / folder_name(gone)).symlink_to(tmp_path)
    node.disk().sweep()
    assert kept.exists()
    assert not orphan.exists()
    assert {entry.name for entry in node.node_dir.iterdir()} == {
        f"{folder_name(here)}.stamp",
        f"{folder_name(gone)}.pin",
    }
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
    assert {phase.name: round(phase.seconds, 6) for phase in adding_up(measured)} == {
        "fetch": 0.1,
        "spawn": 0.1,
        "init": 0.3,
        "load": 0.5,
    }


def test_an_engine_never_sees_the_keys_of_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert not [name for name in standby_environ(load(state_dir=tmp_path), "cpu") if name.startswith("AWS_")]
