"""A pull believes nothing but the digest, fetches no good byte twice, and of many who ask at once one does the work."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import ValidationError

from snapshots import partial, transfer
from snapshots import stage as staging
from snapshots.chunks import chunks_of
from snapshots.errors import NoBucket, NotStored, OriginError, StoreFull, TamperedError, Unreachable
from snapshots.manifest import CHUNK, MANIFEST, Manifest, SnapshotFile, folder_name
from snapshots.pack import pack
from snapshots.partial import Partial
from snapshots.singleflight import alone
from snapshots.stage import stage
from snapshots.store.disk import building, digests, path_of, publish
from snapshots.store.s3_push import MOST_PARTS, part_size
from snapshots.transfer import digests_at, pull, pull_from, push
from snapshots.verify import verify
from tests.fakes_snapshots import FakeOrigin
from tests.model_folders import no_file_larger_than, safetensors, write

WEIGHTS = "model.safetensors"
SIZE = 5 * CHUNK // 2


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        dir=memory if os.access(memory, os.W_OK) else tmp_path, ignore_cleanup_errors=True
    ) as name:
        yield Path(name)
        for parent, _, _ in os.walk(name):
            Path(parent).chmod(0o700)


@pytest.fixture(scope="module")
def content() -> bytes:
    header = safetensors(["x"], SIZE)[:-SIZE]
    return header + random.Random(0).randbytes(SIZE)


@pytest.fixture(scope="module")
def packed(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    config = {"architectures": ["LlamaForCausalLM"]}
    pack(
        write(folder / "model", {"config.json": config, "tokenizer.model": b"", "vocab.txt": b"a", WEIGHTS: content}),
        folder / "origin",
    )
    return folder / "origin"


@pytest.fixture
def origin(tmp_path: Path, packed: Path) -> Path:
    """A store with one snapshot, whose weights are three chunks long."""
    return shutil.copytree(packed, tmp_path / "origin")


@pytest.fixture
def digest(origin: Path) -> str:
    return digests(origin)[0]


def without_chunks(origin: Path, digest: str) -> str:
    """The same snapshot as it was packed before there were chunks."""
    manifest = verify(path_of(origin, digest))
    old = manifest.model_copy(
        update={"files": tuple(file.model_copy(update={"chunks": ()}) for file in manifest.files)}
    )
    with building(origin, 0) as work:
        for file in old.files:
            (work / file.path).write_bytes((path_of(origin, digest) / file.path).read_bytes())
        (work / MANIFEST).write_bytes(old.canonical())
        publish(work, origin, old.digest)
    return old.digest


async def test_a_pull_is_the_snapshot_and_leaves_nothing_else(origin: Path, digest: str, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    manifest = await pull(str(origin), digest, tmp_path / "store", lambda done, total: told.append((done, total)))
    assert verify(path_of(tmp_path / "store", digest)) == manifest
    assert {entry.name for entry in (tmp_path / "store").iterdir()} == {folder_name(digest)}
    assert told == sorted(told)
    assert (told[0], told[-1]) == ((0, manifest.size), (manifest.size, manifest.size))


async def test_a_push_to_a_folder_is_a_store(origin: Path, digest: str, tmp_path: Path) -> None:
    await push(origin, digest, f"file://{tmp_path}/other")
    assert await digests_at(str(tmp_path / "other")) == [digest]
    assert await push(origin, digest, str(tmp_path / "other")) == verify(path_of(tmp_path / "other", digest))


async def test_what_was_good_is_not_fetched_again(
    origin: Path, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PARALLEL", 1)
    fake = FakeOrigin(origin)
    fake.dies_after = 4
    with pytest.raises(Unreachable):
        await pull_from(fake, digest, tmp_path / "store")
    fake.dies_after = 1_000_000
    told: list[int] = []
    await pull_from(fake, digest, tmp_path / "store", lambda done, _: told.append(done))
    assert set(fake.reads.values()) == {1}
    assert told[0] > 2 * CHUNK
    verify(path_of(tmp_path / "store", digest))


async def test_a_claim_of_the_journal_is_believed_only_where_the_bytes_are_there(
    origin: Path, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PARALLEL", 1)
    fake, partial = FakeOrigin(origin), tmp_path / "store" / f".pull-{folder_name(digest)}"
    fake.dies_after = 4
    with pytest.raises(Unreachable):
        await pull_from(fake, digest, tmp_path / "store")
    with (partial / "files" / WEIGHTS).open("r+b") as stream:
        stream.write(b"lost")
    with (partial / "journal").open("a") as stream:
        stream.write("99 0 " + "0" * 64 + "\n0 99 " + "0" * 64 + "\n1 0 cut sho")
    fake.dies_after = 1_000_000
    await pull_from(fake, digest, tmp_path / "store")
    assert {place for place, times in fake.reads.items() if times == 2} == {(WEIGHTS, 0)}
    verify(path_of(tmp_path / "store", digest))


async def test_a_wrong_chunk_is_fetched_once_more(origin: Path, digest: str, tmp_path: Path) -> None:
    fake = FakeOrigin(origin)
    fake.lies[WEIGHTS, CHUNK] = fake.lies["config.json", 0] = 1
    await pull_from(fake, digest, tmp_path / "store")
    assert {place for place, times in fake.reads.items() if times == 2} == {(WEIGHTS, CHUNK), ("config.json", 0)}


async def test_a_chunk_that_stays_wrong_is_refused_by_name(origin: Path, digest: str, tmp_path: Path) -> None:
    fake = FakeOrigin(origin)
    fake.lies[WEIGHTS, CHUNK] = 9
    with pytest.raises(
        TamperedError, match=rf"origin/sha256-\w+/{WEIGHTS} has wrong bytes from {CHUNK} to {2 * CHUNK}.*snapshot push"
    ):
        await pull_from(fake, digest, tmp_path / "store")
    assert digests(tmp_path / "store") == []
    fake.lies.clear()
    await pull_from(fake, digest, tmp_path / "store")  # repaired


async def test_a_manifest_without_chunks_keeps_its_digest_and_is_pulled(
    origin: Path, digest: str, tmp_path: Path
) -> None:
    old = without_chunks(origin, digest)
    assert old != digest
    assert b"chunks" not in (path_of(origin, old) / MANIFEST).read_bytes()
    fake = FakeOrigin(origin)
    fake.lies[WEIGHTS, CHUNK] = 1
    await pull_from(fake, old, tmp_path / "store")  # the whole file once more
    assert {begin: times for (path, begin), times in fake.reads.items() if path == WEIGHTS} == {
        0: 2,
        CHUNK: 2,
        2 * CHUNK: 2,
    }
    fake.lies[WEIGHTS, CHUNK] = 2
    with pytest.raises(TamperedError, match=f"{WEIGHTS} does not have the content"):
        await pull_from(fake, old, tmp_path / "another")


async def test_packing_what_an_older_version_packed_writes_nothing(
    origin: Path, digest: str, packed: Path, tmp_path: Path
) -> None:
    old = without_chunks(origin, digest)
    await push(origin, old, str(tmp_path / "old"))
    assert pack(packed.parent / "model", tmp_path / "old").digest == old
    assert digests(tmp_path / "old") == [old]


@pytest.mark.parametrize("name", [MANIFEST, "config.json", WEIGHTS])
@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder"])
async def test_what_is_no_file_at_an_origin_keeps_nobody_waiting(
    kind: str, name: str, origin: Path, digest: str, tmp_path: Path
) -> None:
    file = path_of(origin, digest) / name
    file.parent.chmod(0o755)
    file.unlink()
    make: dict[str, Callable[[], None]] = {
        "a pipe": lambda: os.mkfifo(file),
        "a device": lambda: file.symlink_to("/dev/zero"),
        "a folder": file.mkdir,
    }
    make[kind]()
    async with asyncio.timeout(10):
        with pytest.raises((TamperedError, IsADirectoryError)):
            await pull(str(origin), digest, tmp_path / "store")


async def test_what_is_not_there_is_said(origin: Path, digest: str, tmp_path: Path) -> None:
    absent = "sha256:" + "a" * 64
    with pytest.raises(NotStored, match="push it there first"):
        await pull(str(origin), absent, tmp_path / "store")
    with pytest.raises(NoBucket, match="is not a folder"):
        await pull(str(tmp_path / "nowhere"), digest, tmp_path / "store")
    with pytest.raises(OriginError, match="s3://BUCKET"):
        await pull("gs://bucket", digest, tmp_path / "store")
    with pytest.raises(OriginError, match="s3://BUCKET"):
        await push(origin, digest, "s3://A_bucket")
    path_of(origin, digest).chmod(0o755)
    (path_of(origin, digest) / WEIGHTS).unlink()
    with pytest.raises(TamperedError, match=f"{WEIGHTS} is missing"):
        await pull(str(origin), digest, tmp_path / "store")
    assert digests(tmp_path / "store") == []


async def test_a_full_disk_leaves_nothing(
    origin: Path, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with no_file_larger_than(CHUNK), pytest.raises(StoreFull, match="use another disk"):
        await pull(str(origin), digest, tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []
    monkeypatch.setattr("snapshots.partial.free", lambda folder: CHUNK)
    with pytest.raises(StoreFull, match=r"0\.01 GB free, the snapshot needs 0\.02 GB"):
        await pull(str(origin), digest, tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


async def test_a_disk_that_fills_up_takes_no_good_chunk_with_it(
    origin: Path, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PARALLEL", 1)
    fake, store = FakeOrigin(origin), tmp_path / "store"
    weights = store / f".pull-{folder_name(digest)}" / "files" / WEIGHTS
    fake.dies_after = 3
    with pytest.raises(Unreachable):
        await pull_from(fake, digest, store)
    assert weights.stat().st_blocks * 512 > 2 * CHUNK  # its space is taken

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    @asynccontextmanager
    async def no_room(size: int) -> AsyncIterator[None]:
        raise StoreFull("budget")
        yield

    with monkeypatch.context() as patched:
        patched.setattr(Partial, "allocate", full)
        with pytest.raises(StoreFull, match="use another disk"):
            await pull_from(fake, digest, store)
    assert CHUNK <= weights.stat().st_blocks * 512 < 2 * CHUNK  # but for what is good it is given back
    with pytest.raises(StoreFull, match="budget"):
        await pull_from(fake, digest, store, room=no_room)
    with monkeypatch.context() as patched:
        patched.setattr(partial, "Writer", full)  # not even opened
        with pytest.raises(StoreFull):
            await pull_from(fake, digest, store)
    fake.dies_after = 1_000_000
    await pull_from(fake, digest, store)
    assert set(fake.reads.values()) == {1}
    verify(path_of(store, digest))


async def test_room_is_left_when_it_is_taken_or_cannot_be(
    origin: Path, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    @asynccontextmanager
    async def room(size: int) -> AsyncIterator[None]:
        told.append(f"{size}")
        try:
            yield
        finally:
            told.append("left")

    def take(partial: Partial) -> None:
        told.append("taken")
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Partial, "allocate", take)
    with pytest.raises(StoreFull):
        await pull_from(FakeOrigin(origin), digest, tmp_path / "store", room=room)
    assert told == [f"{verify(path_of(origin, digest)).size}", "taken", "left"]


async def test_of_many_pulls_one_fetches(origin: Path, digest: str, tmp_path: Path) -> None:
    fake = FakeOrigin(origin)
    await asyncio.gather(*(pull_from(fake, digest, tmp_path / "store") for _ in range(5)))
    assert set(fake.reads.values()) == {1}


async def test_a_pull_given_up_lets_the_next_one_go_on(origin: Path, digest: str, tmp_path: Path) -> None:
    stuck = asyncio.Event()

    class Stuck(FakeOrigin):
        async def manifest(self, digest: str) -> bytes:
            stuck.set()
            await asyncio.Event().wait()
            return b""

    first = asyncio.create_task(pull_from(Stuck(origin), digest, tmp_path / "store"))
    await stuck.wait()
    second = asyncio.create_task(pull(str(origin), digest, tmp_path / "store"))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert digests(tmp_path / "store") == [digest]


def test_threads_that_stage_the_same_verify_it_once(
    origin: Path, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[Path] = []

    def slow(folder: Path) -> Manifest:
        verified.append(folder)
        return verify(folder)

    monkeypatch.setattr(staging, "verify", slow)
    barrier = threading.Barrier(8)

    def ask(_: int) -> Path:
        barrier.wait()
        return stage(origin, digest, tmp_path / "node")

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(ask, range(8))) == {origin / folder_name(digest)}
    assert len(verified) == 1
    assert {entry.suffix for entry in (tmp_path / "node").iterdir()} == {".stamp"}


def test_processes_that_stage_the_same_do_the_work_once(
    origin: Path, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(folder: Path) -> Manifest:
        with (tmp_path / "verified").open("a") as file:
            file.write("verified\n")
        return verify(folder)

    def ask() -> None:
        barrier.wait(10)
        stage(origin, digest, tmp_path / "node")

    monkeypatch.setattr(staging, "verify", told)
    forks = multiprocessing.get_context("fork")
    barrier = forks.Barrier(3)
    asked = [forks.Process(target=ask) for _ in range(3)]
    for process in asked:
        process.start()
    for process in asked:
        process.join(30)
    assert [process.exitcode for process in asked] == [0, 0, 0]
    assert (tmp_path / "verified").read_text() == "verified\n"


def test_a_lock_whose_file_was_removed_is_none(tmp_path: Path) -> None:
    """Three at one lock, each of which removes its file at the end: never two at once."""
    inside, most = 0, 0

    def enter(_: int) -> None:
        nonlocal inside, most
        for _ in range(50):
            with alone(tmp_path / "lock"):
                inside += 1
                most = max(most, inside)
                inside -= 1

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(enter, range(3)))
    assert most == 1
    assert not (tmp_path / "lock").exists()


def test_chunks_are_all_or_none() -> None:
    sha256 = hashlib.sha256(b"").hexdigest()
    for size, count in ((CHUNK, 1), (CHUNK + 1, 1), (CHUNK + 1, 3), (0, 1)):
        with pytest.raises(ValidationError):
            SnapshotFile(path="a", size=size, sha256=sha256, chunks=(sha256,) * count)
    file = SnapshotFile(path="a", size=2 * CHUNK + 1, sha256=sha256, chunks=(sha256,) * 3)
    assert [(chunk.begin, chunk.length) for chunk in chunks_of(file)] == [(0, CHUNK), (CHUNK, CHUNK), (2 * CHUNK, 1)]


def test_parts_are_whole_chunks_and_never_too_many() -> None:
    for size in (1, CHUNK, 80_000_000_000, 80 * 2**30 + 1, 5 * 2**40):
        assert part_size(size) % CHUNK == 0
        assert size <= part_size(size) * MOST_PARTS
    assert part_size(CHUNK * MOST_PARTS) == CHUNK


async def test_an_engine_may_begin_before_the_rest_but_never_on_what_cannot_be_checked_yet(
    origin: Path, digest: str, tmp_path: Path
) -> None:
    old, told, fake = without_chunks(origin, digest), list[str](), FakeOrigin(origin)

    class Waits(FakeOrigin):
        async def fill(self, digest: str, path: str, begin: int, into: memoryview) -> int:
            if (path, begin) == (WEIGHTS, CHUNK):
                await begun.wait()
            return await super().fill(digest, path, begin, into)

    begun = asyncio.Event()

    def usable(folder: Path) -> None:
        begun.set()
        told.append((folder / "files" / "config.json").read_text())

    async def verified() -> None:
        told.append("verified")

    await pull_from(
        Waits(origin),
        digest,
        tmp_path / "store",
        steps=transfer.Steps(usable, verified, lambda folder: told.append(folder.name)),
    )
    assert told[1:] == ["verified", folder_name(digest)]
    assert json.loads(told[0]) == {"architectures": ["LlamaForCausalLM"]}
    told.clear()
    await pull_from(
        fake, old, tmp_path / "store", steps=transfer.Steps(lambda _: told.append(str(sum(fake.reads.values()))))
    )
    assert told == ["5"]  # all of it: two files of one chunk, one of three, and none of an empty file
