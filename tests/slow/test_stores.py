"""What every store of snapshots owes: one suite for push, pull and listing. Another store is one line in `place`."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from aiobotocore.session import get_session  # type: ignore[import-untyped]

from snapshots.errors import NotStored, TamperedError
from snapshots.manifest import MANIFEST, Manifest, folder_name
from snapshots.pack import pack
from snapshots.store.disk import digests, path_of
from snapshots.store.s3 import open_bucket
from snapshots.transfer import digests_at, pull, push
from snapshots.verify import verify
from tests.model_folders import PLAIN, write
from tests.s3_server import reach, s3_server

WEIGHTS = "model.safetensors"


class Place(Protocol):
    """Where nothing is yet, and what somebody else may do to it."""

    url: str

    async def put(self, digest: str, path: str, content: bytes) -> None: ...
    async def remove(self, digest: str, path: str) -> None: ...


class AFolder:
    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, f"file://{folder}"
        folder.mkdir()

    async def put(self, digest: str, path: str, content: bytes) -> None:
        file = self.folder / folder_name(digest) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.parent.chmod(0o700)
        file.unlink(missing_ok=True)
        file.write_bytes(content)

    async def remove(self, digest: str, path: str) -> None:
        file = self.folder / folder_name(digest) / path
        file.parent.chmod(0o700)
        file.unlink()


class ABucket:
    def __init__(self) -> None:
        self.url = f"s3://models/{uuid.uuid4()}/a"

    async def put(self, digest: str, path: str, content: bytes) -> None:
        async with open_bucket(self.url) as bucket:
            await bucket.client.put_object(Bucket="models", Key=bucket.key(digest, path), Body=content)

    async def remove(self, digest: str, path: str) -> None:
        async with open_bucket(self.url) as bucket:
            await bucket.client.delete_object(Bucket="models", Key=bucket.key(digest, path))


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with s3_server() as port:
        yield port


@pytest.fixture(params=["folder", "s3"])
async def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Place]:
    if request.param == "folder":
        yield AFolder(tmp_path / "origin")
    else:
        reach(request.getfixturevalue("server"), monkeypatch)
        client: Any
        async with get_session().create_client("s3") as client:
            await client.create_bucket(Bucket="models")  # again and again: it stays
        yield ABucket()
    for folder, _, _ in os.walk(tmp_path):
        Path(folder).chmod(0o700)


@pytest.fixture
def packed(tmp_path: Path) -> tuple[Path, Manifest]:
    store = tmp_path / "store"
    return store, pack(write(tmp_path / "model", PLAIN), store)


Packed = tuple[Path, Manifest]


async def test_where_nothing_is_nothing_is_listed_and_nothing_is_had(place: Place, tmp_path: Path) -> None:
    assert await digests_at(place.url) == []
    with pytest.raises(NotStored):
        await pull(place.url, "sha256:" + "a" * 64, tmp_path / "target")
    assert digests(tmp_path / "target") == []


async def test_what_is_pushed_is_listed_and_pulled_as_it_was(place: Place, packed: Packed, tmp_path: Path) -> None:
    store, manifest = packed
    for _ in range(2):  # a push again changes nothing
        assert await push(store, manifest.digest, place.url) == manifest
        assert await digests_at(place.url) == [manifest.digest]
    told: list[tuple[int, int]] = []
    target = tmp_path / "target"
    assert await pull(place.url, manifest.digest, target, lambda done, total: told.append((done, total))) == manifest
    assert verify(path_of(target, manifest.digest)) == manifest and told[-1] == (manifest.size, manifest.size)


async def test_wrong_bytes_are_refused_by_name_and_leave_nothing(place: Place, packed: Packed, tmp_path: Path) -> None:
    store, manifest = packed
    await push(store, manifest.digest, place.url)
    content = bytearray((path_of(store, manifest.digest) / WEIGHTS).read_bytes())
    content[-1] ^= 1
    for wrong in (bytes(content), bytes(content[:-3])):
        await place.put(manifest.digest, WEIGHTS, wrong)
        with pytest.raises(TamperedError, match=f"{WEIGHTS} has wrong bytes"):
            await pull(place.url, manifest.digest, tmp_path / "target")
        assert digests(tmp_path / "target") == []


async def test_a_missing_file_is_refused_by_name(place: Place, packed: Packed, tmp_path: Path) -> None:
    store, manifest = packed
    await push(store, manifest.digest, place.url)
    await place.remove(manifest.digest, WEIGHTS)
    with pytest.raises(TamperedError, match=f"{WEIGHTS} is missing"):
        await pull(place.url, manifest.digest, tmp_path / "target")


async def test_a_manifest_of_another_snapshot_is_refused(place: Place, packed: Packed, tmp_path: Path) -> None:
    digest = "sha256:" + "a" * 64
    await place.put(digest, MANIFEST, packed[1].canonical())
    with pytest.raises(TamperedError, match=r"manifest\.json is not the manifest of sha256:aaa"):
        await pull(place.url, digest, tmp_path / "target")


async def test_a_damaged_snapshot_is_not_pushed(place: Place, packed: Packed, tmp_path: Path) -> None:
    store, manifest = packed
    file = path_of(store, manifest.digest) / WEIGHTS
    file.chmod(0o600)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(TamperedError):
        await push(store, manifest.digest, place.url)
    assert await digests_at(place.url) == []
