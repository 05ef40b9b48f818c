"""Push to and pull from moto's S3 server over real HTTP, killed half-way and repeated: the store ends as it should, and
what was there is not sent again. All traffic goes through a small proxy that counts it, and resets connections when
told.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import get_session  # type: ignore[import-untyped]
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from pilotlight.ports import free_port
from snapshots.errors import Denied, NoBucket, NotStored, OriginError, TamperedError, Unreachable
from snapshots.manifest import CHUNK, MANIFEST, Manifest, folder_name
from snapshots.pack import pack
from snapshots.store.disk import digests, path_of
from snapshots.store.s3 import open_bucket, translated
from snapshots.transfer import digests_at, pull, push
from snapshots.verify import verify
from tests.s3_server import reach, s3_server

SIZE = 44 << 20  # bytes of the weights
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def moto() -> Iterator[int]:
    with s3_server() as port:
        yield port


class Proxy:
    """Between client and store: counts bytes, and resets connections when told."""

    def __init__(self) -> None:
        self.up = self.down = 0  # bytes towards the store, and back
        self.resets = 0  # how many connections are still to be reset, each after `resets_after` bytes from the store
        self.resets_after = CHUNK // 2

    async def serve(self, store_port: int) -> asyncio.Server:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            store_reader, store_writer = await asyncio.open_connection("127.0.0.1", store_port)
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await asyncio.gather(
                    self._copy(reader, store_writer, up=True), self._copy(store_reader, writer, up=False)
                )
            for each in (writer, store_writer):
                each.transport.abort()

        return await asyncio.start_server(connected, "127.0.0.1", 0)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        copied = 0
        while content := await reader.read(1 << 18):
            copied += len(content)
            if up:
                self.up += len(content)
            else:
                self.down += len(content)
                if self.resets and copied > self.resets_after:
                    self.resets -= 1
                    raise ConnectionResetError
            writer.write(content)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


@pytest.fixture
async def proxy(moto: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    """The way to the store, which has one bucket, `models`."""
    proxy = Proxy()
    server = await proxy.serve(moto)
    reach(server.sockets[0].getsockname()[1], monkeypatch)
    async with s3() as client:
        await client.create_bucket(Bucket="models")  # again and again: it stays
    yield proxy
    server.close()


@pytest.fixture
def url() -> str:
    """A place in the store where nothing is."""
    return f"s3://models/{uuid.uuid4()}/a"


@pytest.fixture
async def pushed(proxy: Proxy, packed: tuple[Path, Manifest], url: str) -> str:
    """A place where the snapshot is: copied there, within the store, from where the first test that asked pushed it."""
    store, manifest = packed
    first = "s3://models/pushed"
    await push(store, manifest.digest, first)
    async with open_bucket(first) as source, open_bucket(url) as target:
        for path in [*(file.path for file in manifest.files), MANIFEST]:
            copied = {"Bucket": "models", "Key": source.key(manifest.digest, path)}
            await source.client.copy_object(Bucket="models", Key=target.key(manifest.digest, path), CopySource=copied)
    proxy.up = proxy.down = 0
    return url


def s3() -> Any:
    return get_session().create_client("s3")


async def unfinished(url: str) -> list[Any]:
    async with s3() as client:
        listed = await client.list_multipart_uploads(Bucket="models", Prefix=url.removeprefix("s3://models/"))
    uploads: list[Any] = listed.get("Uploads", [])
    return uploads


@pytest.fixture(scope="module")
def packed() -> Iterator[tuple[Path, Manifest]]:
    """A store with one snapshot of two files worth several parts, and small ones."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        dir=memory if os.access(memory, os.W_OK) else None, ignore_cleanup_errors=True
    ) as name:
        model = Path(name) / "model"
        model.mkdir()
        (model / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
        (model / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
        (model / "vocab.txt").write_bytes(random.Random(1).randbytes(CHUNK + 5))
        header = json.dumps({"a": {"dtype": "U8", "shape": [SIZE], "data_offsets": [0, SIZE]}}).encode()
        (model / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + random.Random(0).randbytes(SIZE))
        yield Path(name) / "store", pack(model, Path(name) / "store")
        for parent, _, _ in os.walk(name):
            Path(parent).chmod(0o700)


@pytest.fixture
def target() -> Iterator[Path]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        dir=memory if os.access(memory, os.W_OK) else None, ignore_cleanup_errors=True
    ) as name:
        yield Path(name) / "store"
        for parent, _, _ in os.walk(name):
            Path(parent).chmod(0o700)


DIES = """
import asyncio, os, signal, sys
from pathlib import Path
from snapshots.transfer import pull, push
def told(done, total):
    if done > total // 2:
        os.kill(os.getpid(), signal.SIGKILL)
what, store, digest, url = sys.argv[1:]
asyncio.run(push(Path(store), digest, url, told) if what == "push" else pull(url, digest, Path(store), told))
"""


async def dies_half_way(what: str, store: Path, digest: str, url: str) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", DIES, what, str(store), digest, url)
    assert await process.wait() == -signal.SIGKILL


async def test_pushed_and_pulled_it_is_the_same(
    proxy: Proxy, packed: tuple[Path, Manifest], url: str, target: Path
) -> None:
    store, manifest = packed
    told: list[tuple[int, int]] = []
    assert await digests_at(url) == []
    await push(store, manifest.digest, url, lambda done, total: told.append((done, total)))
    assert told[-1] == (manifest.size, manifest.size)
    assert await digests_at(url + "/") == [manifest.digest]
    assert await digests_at("s3://models") == []
    told.clear()
    assert await pull(url, manifest.digest, target, lambda done, total: told.append((done, total))) == manifest
    assert told[-1] == (manifest.size, manifest.size)
    assert verify(path_of(target, manifest.digest)) == manifest
    assert {entry.name for entry in target.iterdir()} == {folder_name(manifest.digest)}
    assert proxy.up < manifest.size * 1.1
    assert proxy.down < manifest.size * 1.1


async def test_a_push_repeated_sends_nothing(proxy: Proxy, packed: tuple[Path, Manifest], pushed: str) -> None:
    store, manifest = packed
    await push(store, manifest.digest, pushed)
    assert proxy.up < 100_000


async def test_a_push_killed_half_way_is_gone_on_with(
    proxy: Proxy, packed: tuple[Path, Manifest], url: str, target: Path
) -> None:
    store, manifest = packed
    await dies_half_way("push", store, manifest.digest, url)
    assert await digests_at(url) == []  # without its manifest it is none
    with pytest.raises(NotStored, match="push it there first"):
        await pull(url, manifest.digest, target)
    assert await unfinished(url)
    proxy.up = 0
    await push(store, manifest.digest, url)
    assert proxy.up < manifest.size * 0.6
    assert not await unfinished(url)
    await pull(url, manifest.digest, target)
    verify(path_of(target, manifest.digest))


async def test_foreign_parts_are_replaced_and_forgotten_uploads_aborted(
    proxy: Proxy, packed: tuple[Path, Manifest], url: str, target: Path
) -> None:
    store, manifest = packed
    async with open_bucket(url) as bucket:
        key = bucket.key(manifest.digest, WEIGHTS)
        for _ in range(2):
            upload = await bucket.client.create_multipart_upload(
                Bucket="models", Key=key, Metadata={"sha256": "0" * 64}
            )
            asked = {"Bucket": "models", "Key": key, "UploadId": upload["UploadId"]}
            await bucket.client.upload_part(**asked, PartNumber=2, Body=b"x" * (6 << 20))
    await push(store, manifest.digest, url)
    assert not await unfinished(url)
    await pull(url, manifest.digest, target)
    proxy.up = 0
    await push(store, manifest.digest, url)
    assert proxy.up < 100_000


async def test_two_who_push_the_same_at_once(
    proxy: Proxy, packed: tuple[Path, Manifest], url: str, target: Path
) -> None:
    store, manifest = packed
    await asyncio.gather(*(push(store, manifest.digest, url) for _ in range(2)))
    assert not await unfinished(url)
    await pull(url, manifest.digest, target)


async def test_a_pull_killed_half_way_is_gone_on_with(
    proxy: Proxy, packed: tuple[Path, Manifest], pushed: str, target: Path
) -> None:
    manifest = packed[1]
    await dies_half_way("pull", target, manifest.digest, pushed)
    assert digests(target) == []
    proxy.down = 0
    told: list[int] = []
    await pull(pushed, manifest.digest, target, lambda done, _: told.append(done))
    assert told[0] >= manifest.size // 2 - CHUNK
    assert proxy.down < manifest.size * 0.65
    verify(path_of(target, manifest.digest))
    assert {entry.name for entry in target.iterdir()} == {folder_name(manifest.digest)}


async def test_connections_that_break_off_are_made_again(
    proxy: Proxy, packed: tuple[Path, Manifest], pushed: str, target: Path
) -> None:
    proxy.resets = 3
    await pull(pushed, packed[1].digest, target)
    assert proxy.resets == 0
    verify(path_of(target, packed[1].digest))


async def test_a_corrupted_object_is_refused_by_name_and_a_push_repairs_it(
    proxy: Proxy, packed: tuple[Path, Manifest], pushed: str, target: Path
) -> None:
    store, manifest = packed
    content = bytearray((path_of(store, manifest.digest) / WEIGHTS).read_bytes())
    content[3 * CHUNK + 7] ^= 1
    async with open_bucket(pushed) as bucket:
        key = bucket.key(manifest.digest, WEIGHTS)
        await bucket.client.put_object(Bucket="models", Key=key, Body=bytes(content))
        says = rf"{pushed}/sha256-\w+/{WEIGHTS} has wrong bytes from {3 * CHUNK} to {4 * CHUNK}, fetched 2 times: push it again"
        with pytest.raises(TamperedError, match=says):
            await pull(pushed, manifest.digest, target)
        assert digests(target) == []
        await push(store, manifest.digest, pushed)
        await pull(pushed, manifest.digest, target)
        await bucket.client.put_object(Bucket="models", Key=key, Body=b"cut short")
        with pytest.raises(TamperedError, match=rf"{WEIGHTS} has wrong bytes from \d+"):
            await pull(pushed, manifest.digest, target.with_name("2"))
        await bucket.client.delete_object(Bucket="models", Key=key)
        with pytest.raises(TamperedError, match=f"{WEIGHTS} is missing: push it again"):
            await pull(pushed, manifest.digest, target.with_name("2"))


async def test_a_manifest_of_another_snapshot_is_refused(
    proxy: Proxy, packed: tuple[Path, Manifest], url: str, target: Path
) -> None:
    digest = "sha256:" + "a" * 64
    async with open_bucket(url) as bucket:
        await bucket.client.put_object(Bucket="models", Key=bucket.key(digest, MANIFEST), Body=packed[1].canonical())
    with pytest.raises(TamperedError, match=r"manifest\.json is not the manifest of sha256:aaa"):
        await pull(url, digest, target)


async def test_a_damaged_snapshot_is_not_pushed(
    proxy: Proxy, packed: tuple[Path, Manifest], url: str, target: Path
) -> None:
    store, manifest = packed
    await push(store, manifest.digest, str(target))
    file = path_of(target, manifest.digest) / WEIGHTS
    file.chmod(0o644)
    with file.open("r+b") as stream:
        stream.write(b"damaged")
    with pytest.raises(TamperedError, match=f"{WEIGHTS} does not have the content"):
        await push(target, manifest.digest, url)
    assert await digests_at(url) == []


async def test_what_the_store_refuses_is_said_with_its_remedy(
    proxy: Proxy, packed: tuple[Path, Manifest], url: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, manifest = packed
    for ask in (
        push(store, manifest.digest, "s3://nobody/x"),
        pull("s3://nobody/x", manifest.digest, target),
        digests_at("s3://nobody"),
    ):
        with pytest.raises(NoBucket, match="no such bucket; make it"):
            await ask
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unreachable, match="check AWS_ENDPOINT_URL and the network"):
        await pull(url, manifest.digest, target)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(Denied, match=r"no credentials.*check AWS_PROFILE"):
        await digests_at(url)


@pytest.mark.parametrize(
    ("code", "status", "error", "says"),
    [
        ("AccessDenied", 403, Denied, "refuses .AccessDenied.: check AWS_PROFILE"),
        ("SignatureDoesNotMatch", 403, Denied, "AWS_SECRET_ACCESS_KEY"),
        ("InternalError", 500, Unreachable, "try again, what was transferred is kept"),
        ("Weird", 400, OriginError, "Weird"),
    ],
)
def test_answers_of_stores_that_moto_does_not_give(code: str, status: int, error: type[OriginError], says: str) -> None:
    answer = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(error, match=says), translated("s3://b/p"):
        raise ClientError(answer, "GetObject")


async def test_of_many_who_pull_the_same_one_fetches(
    proxy: Proxy, packed: tuple[Path, Manifest], pushed: str, target: Path
) -> None:
    manifest = packed[1]
    await asyncio.gather(*(pull(pushed, manifest.digest, target) for _ in range(4)))
    verify(path_of(target, manifest.digest))
    assert proxy.down < manifest.size * 1.1
