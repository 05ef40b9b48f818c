"""Sends a snapshot to a bucket: several parts at once, nothing twice, the manifest last. Step 9.

Killed half-way, it leaves complete objects, which are recognised by size and recorded SHA-256. It also leaves uploads
that are not completed, which are gone on with: their parts have the MD5 of their content for a name. It must survive a
second pusher of the same snapshot. Both work at the same upload, and the one that finds it completed looks at the
object instead.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from snapshots.chunks import Chunk, chunks_of
from snapshots.errors import NoBucket, OriginError, TamperedError, Unreachable
from snapshots.manifest import CHUNK, MANIFEST, Manifest, SnapshotFile
from snapshots.singleflight import together
from snapshots.store.s3 import Bucket, code_of, translated
from snapshots.verify import REMEDY, verify

PARALLEL = 8  # parts under way, each in memory
MOST_PARTS = 10_000  # of one upload, as S3 has it
Progress = Callable[[int, int], None]


async def send(folder: Path, manifest: Manifest, bucket: Bucket, progress: Progress | None) -> None:
    """Raises TamperedError where a file in `folder` is not what the manifest says, OriginError, OSError."""
    if any(file.size > CHUNK and not file.chunks for file in manifest.files):
        await asyncio.to_thread(verify, folder)  # nothing smaller than the whole can be checked while it is sent
    push = _Push(folder, manifest, bucket, progress)
    left_open = await push.open_uploads()
    await together(
        [push.file(file, left_open.get(bucket.key(manifest.digest, file.path), [])) for file in manifest.files]
    )
    await push.abort_leftovers()
    await push.manifest()


def part_size(size: int) -> int:
    """Bytes of a part of a file: whole chunks, no more than MOST_PARTS of them."""
    return CHUNK * max(1, -(-size // (CHUNK * MOST_PARTS)))


class _Push:
    def __init__(self, folder: Path, manifest: Manifest, bucket: Bucket, progress: Progress | None) -> None:
        self._folder = folder
        self._manifest = manifest
        self._bucket = bucket
        self._progress = progress
        self._slots = asyncio.Semaphore(PARALLEL)
        self._sent = dict.fromkeys((file.path for file in manifest.files), 0)

    async def open_uploads(self) -> dict[str, list[str]]:
        """Uploads begun for this snapshot and not completed, by key, the newest first."""
        found: list[Any] = []
        try:
            with translated(self._bucket.name):
                pages = self._bucket.client.get_paginator("list_multipart_uploads").paginate(
                    Bucket=self._bucket.bucket, Prefix=self._bucket.key(self._manifest.digest)
                )
                async for page in pages:
                    found += page.get("Uploads", ())
        except (NoBucket, Unreachable):
            raise
        except OriginError:
            return {}  # a store that cannot list them, or does not let us: then nothing is gone on with
        uploads: dict[str, list[str]] = {}
        for upload in sorted(found, key=lambda upload: upload["Initiated"], reverse=True):
            uploads.setdefault(upload["Key"], []).append(upload["UploadId"])
        return uploads

    async def file(self, file: SnapshotFile, left_open: list[str]) -> None:
        key = self._bucket.key(self._manifest.digest, file.path)
        if await self._complete(file, key):
            return self._tell(file, file.size)
        if file.size <= CHUNK:
            async with self._slots:
                return await self._small(file, key)
        for upload in (left_open[0] if left_open else None, None):
            try:
                await self._large(file, key, upload)
            except (
                _Ended,
                OriginError,
            ) as error:  # another pusher has ended the upload; some stores then fail with a 500
                if not isinstance(error, _Ended) and not await self._complete(file, key):
                    raise
            if await self._complete(file, key):  # else: ended without an object, or begun by somebody who meant another
                return self._tell(file, file.size)
        raise OriginError(
            f"{self._bucket.name} does not keep {key} with its size and metadata: it is not an S3 store as needed"
        )

    async def _complete(self, file: SnapshotFile, key: str) -> bool:
        async with self._slots:
            return await self._bucket.head(key) == (file.size, file.sha256)

    async def _small(self, file: SnapshotFile, key: str) -> None:
        content = await asyncio.to_thread(_read, self._folder, file, chunks_of(file))
        await self._ask("put_object", Key=key, Body=content, Metadata={"sha256": file.sha256})
        self._tell(file, file.size)

    async def _large(self, file: SnapshotFile, key: str, upload: str | None) -> None:
        """Begin an upload, or go on with one; send the parts it lacks; complete it. Raises _Ended where it is no
        more.
        """
        self._sent[file.path] = 0
        tags = await self._parts(key, upload) if upload else {}
        if upload is None:
            upload = (await self._ask("create_multipart_upload", Key=key, Metadata={"sha256": file.sha256}))["UploadId"]
        chunks, at_once = chunks_of(file), part_size(file.size) // CHUNK
        parts = {number: chunks[i : i + at_once] for number, i in enumerate(range(0, len(chunks), at_once), start=1)}

        async def part(number: int) -> None:
            async with self._slots:
                content = await asyncio.to_thread(_read, self._folder, file, parts[number])
                if number not in tags or tags[number] != await asyncio.to_thread(_md5, content):
                    answer = await self._ask("upload_part", Key=key, UploadId=upload, PartNumber=number, Body=content)
                    tags[number] = answer["ETag"].strip('"')
            self._tell(file, self._sent[file.path] + len(content))

        await together([part(number) for number in parts])
        listed = [{"PartNumber": number, "ETag": f'"{tags[number]}"'} for number in sorted(parts)]
        await self._ask("complete_multipart_upload", Key=key, UploadId=upload, MultipartUpload={"Parts": listed})

    async def _parts(self, key: str, upload: str) -> dict[int, str]:
        with translated(self._bucket.name):
            pages = self._bucket.client.get_paginator("list_parts").paginate(
                Bucket=self._bucket.bucket, Key=key, UploadId=upload
            )
            try:
                return {
                    part["PartNumber"]: part["ETag"].strip('"')
                    async for page in pages
                    for part in page.get("Parts", ())
                }
            except ClientError as error:
                raise _Ended if code_of(error) == "NoSuchUpload" else error from None

    async def abort_leftovers(self) -> None:
        """Every file is there: what uploads are still open hold nothing but space."""
        for key, uploads in (await self.open_uploads()).items():
            for upload in uploads:
                try:
                    await self._ask("abort_multipart_upload", Key=key, UploadId=upload)
                except _Ended:
                    pass

    async def manifest(self) -> None:
        content, digest = self._manifest.canonical(), self._manifest.digest
        key, sha256 = self._bucket.key(digest, MANIFEST), digest.removeprefix("sha256:")
        if await self._bucket.head(key) != (len(content), sha256):
            await self._ask(
                "put_object", Key=key, Body=content, Metadata={"sha256": sha256}, ContentType="application/json"
            )

    async def _ask(self, operation: str, **arguments: Any) -> Any:
        with translated(self._bucket.name):
            try:
                return await getattr(self._bucket.client, operation)(Bucket=self._bucket.bucket, **arguments)
            except ClientError as error:
                # Somebody who pushes the same took the upload, or its parts, from under us.
                raise _Ended if code_of(error) in ("NoSuchUpload", "InvalidPart") else error from None

    def _tell(self, file: SnapshotFile, sent: int) -> None:
        self._sent[file.path] = sent
        if self._progress:
            self._progress(sum(self._sent.values()), self._manifest.size)


class _Ended(Exception):
    """An upload is completed or aborted already."""


def _read(folder: Path, file: SnapshotFile, chunks: list[Chunk]) -> bytes:
    """Chunks that follow each other, as good as the manifest can tell. Raises TamperedError, OSError."""
    with (folder / file.path).open("rb", buffering=0) as stream:
        parts = [os.pread(stream.fileno(), chunk.length, chunk.begin) for chunk in chunks]
    for chunk, content in zip(chunks, parts, strict=True):
        if len(content) != chunk.length or chunk.sha256 not in (None, hashlib.sha256(content).hexdigest()):
            raise TamperedError(f"{folder / file.path} does not have the content its manifest says: {REMEDY}")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
