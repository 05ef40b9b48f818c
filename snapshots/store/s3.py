"""The store that is a bucket: S3 and everything that speaks it. Step 9.

    <prefix>/sha256-<64 hex>/<path>           each object's metadata `sha256` is the SHA-256 of its content
    <prefix>/sha256-<64 hex>/manifest.json    written last: without it there is no snapshot

Endpoint, region and credentials come from where AWS' own tools take them (AWS_ENDPOINT_URL, AWS_PROFILE, …). It must
survive a store that resets, stalls, trickles or lies. Requests are repeated by botocore, bodies cut short by us, parts
that come too slowly once (`stall.py`). What cannot be is an error that says what to do. Whether bytes are good is for
the reader to judge (`transfer.py`). Bodies come over signed links (`direct.py`); what goes wrong there is asked again
here.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import aiohttp
from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
from aiobotocore.session import get_session  # type: ignore[import-untyped]
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.exceptions import ConnectionError as NotConnected

from snapshots.errors import PUSH, Denied, NoBucket, NotStored, OriginError, TamperedError, Unreachable
from snapshots.manifest import CHUNK, LARGEST_MANIFEST, MANIFEST, digest_of_folder, folder_name
from snapshots.store.direct import SLICE, Direct, Reading
from snapshots.store.stall import Pace

CONNECTIONS = 32
READERS = 16  # threads that read bodies
LINK_SECONDS = 600  # how long a signed link is used; it is good for twice that
READ_TRIES = 4  # bodies cut short
CONNECT_TIMEOUT = 5.0  # s
READ_TIMEOUT = 30.0  # s without a byte
ATTEMPTS = 3  # of each request, by botocore, with growing pauses
_URL = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?", re.ASCII)
_CUT = (aiohttp.ClientError, TimeoutError, HTTPClientError, IncompleteReadError, ConnectionResetError)
_DENIED = {
    "AccessDenied",
    "403",
    "401",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "AllAccessDisabled",
}
GONE = {"404", "NoSuchKey", "NotFound"}
CREDENTIALS = "check AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they may do with this bucket"


@asynccontextmanager
async def open_bucket(url: str) -> AsyncIterator[Bucket]:
    """The bucket and prefix a URL names. Nothing is asked of it yet. Raises OriginError."""
    match = _URL.fullmatch(url)
    if match is None:
        raise OriginError(f"{url!r} names no bucket: write s3://BUCKET or s3://BUCKET/PREFIX")
    config = AioConfig(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        max_pool_connections=CONNECTIONS,
        signature_version="s3v4",
        retries={"mode": "standard", "max_attempts": ATTEMPTS},
        request_checksum_calculation="when_required",  # stores that only speak S3 do not all know the newer checksums
        response_checksum_validation="when_required",
    )
    async with AsyncExitStack() as stack:
        with translated(url):
            client = await stack.enter_async_context(get_session().create_client("s3", config=config))
        bucket = Bucket(client, match["bucket"], (match["prefix"] or "").strip("/"))
        try:
            yield bucket
        finally:
            bucket.close()


class Bucket:
    """One bucket and prefix, over a client that is open."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self.client = client
        self.bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self.name = f"s3://{bucket}/{prefix}".rstrip("/")
        self._pace = Pace()
        self._direct = Direct()
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="s3")
        self._links: dict[str, tuple[str, float]] = {}  # key → link, until when it is used (monotonic seconds)

    def close(self) -> None:
        self._direct.close()
        self._threads.shutdown(wait=False)

    def key(self, digest: str, path: str = "") -> str:
        return f"{self._prefix}{folder_name(digest)}/{path}"

    async def ready(self) -> None:
        await self._link(self._prefix + MANIFEST)

    async def digests(self) -> list[str]:
        found: list[str] = []
        with translated(self.name):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self._prefix, Delimiter="/"
            )
            async for page in pages:
                names = [
                    entry["Prefix"].removeprefix(self._prefix).rstrip("/") for entry in page.get("CommonPrefixes", ())
                ]
                found += [digest for name in names if (digest := digest_of_folder(name))]
        slots = asyncio.Semaphore(CONNECTIONS)

        async def is_complete(digest: str) -> bool:
            async with slots:
                return await self.head(self.key(digest, MANIFEST)) is not None

        there = await asyncio.gather(*map(is_complete, found))
        return sorted(digest for digest, is_there in zip(found, there, strict=True) if is_there)

    async def manifest(self, digest: str) -> bytes:
        try:
            return await self._paced(digest, MANIFEST, 0, LARGEST_MANIFEST + 1)
        except TamperedError:
            raise NotStored(
                f"snapshot {digest} is not in {self.name}: push it there first (`pilotlight snapshot push`)"
            ) from None

    async def fill(self, digest: str, path: str, begin: int, into: memoryview) -> int:
        reading = Reading(await self._link(self.key(digest, path)), begin, into)
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._direct.read, reading)
        try:
            keeps = await self._pace.keeps(work, reading, len(into))
        except asyncio.CancelledError:
            reading.abort()
            await asyncio.wait([work])  # it must write no more
            raise
        if not keeps:
            reading.abort()
            await asyncio.wait([work])
        length = await work
        if length is None:
            content = await self._paced(digest, path, begin, len(into))
            length = len(content)
            into[:length] = content
        return length

    async def _paced(self, digest: str, path: str, begin: int, length: int) -> bytes:
        """`_read`, unless it comes too slowly. Raises TamperedError, OriginError."""
        part = _Part()
        work = asyncio.ensure_future(self._read(digest, path, begin, length, part))
        try:
            if await self._pace.keeps(work, part, min(length, CHUNK)):
                return work.result()
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait([work])
        raise Unreachable(
            f"{self.name}/{folder_name(digest)}/{path} comes too slowly from {begin} to {begin + length}: only {part.length} bytes, over a "
            "connection of their own: check the store and the network, then try again: what was transferred is kept"
        )

    async def _link(self, key: str) -> str:
        """A signed link to an object. Raises OriginError."""
        now = time.monotonic()
        link, until = self._links.get(key, ("", 0.0))
        if now >= until:
            with translated(self.name):
                wanted = {"Bucket": self.bucket, "Key": key}
                link = await self.client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=2 * LINK_SECONDS)
            self._links = {other: known for other, known in self._links.items() if known[1] > now} | {
                key: (link, now + LINK_SECONDS)
            }
        return link

    async def _read(self, digest: str, path: str, begin: int, length: int, part: _Part) -> bytes:
        wanted = {"Bucket": self.bucket, "Key": self.key(digest, path), "Range": f"bytes={begin}-{begin + length - 1}"}
        with translated(self.name):
            for left in reversed(range(READ_TRIES)):
                try:
                    response = await self.client.get_object(**wanted)
                except ClientError as error:
                    if code_of(error) == "InvalidRange":
                        return b""
                    if code_of(error) in GONE:
                        raise TamperedError(f"{self.name}/{folder_name(digest)}/{path} is missing: {PUSH}") from None
                    raise
                try:
                    async with response["Body"] as body:
                        content, part.length = bytearray(), 0
                        more = response.get("ContentLength", 0) <= length
                        while more and (piece := await body.read(SLICE)):
                            content += piece
                            part.length = len(content)
                            more = len(content) <= length
                        # it did not hear how much was asked for: nothing to hold in memory
                        return bytes(content) if more else b""
                except _CUT:
                    if not left:
                        raise
        raise AssertionError("returned or raised")

    async def head(self, key: str) -> tuple[int, str] | None:
        """Size and recorded SHA-256 of an object, None where there is none. Raises OriginError."""
        with translated(self.name):
            try:
                answer = await self.client.head_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if code_of(error) in GONE:
                    return None
                raise
            return answer["ContentLength"], answer["Metadata"].get("sha256", "")


class _Part:
    """How much of what is read by the general client has come."""

    length = 0


def code_of(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Errors of the client as ours."""
    try:
        yield
    except ClientError as error:
        code, says = code_of(error), str(error)[:300]
        if code == "NoSuchBucket":
            raise NoBucket(
                f"{name}: there is no such bucket; make it, or correct the name or AWS_ENDPOINT_URL"
            ) from None
        if code in _DENIED:
            raise Denied(f"{name} refuses ({code}): {CREDENTIALS}") from None
        if int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) >= 500 or code in (
            "SlowDown",
            "RequestTimeout",
        ):
            raise Unreachable(f"{name} fails ({says}): try again, what was transferred is kept") from None
        raise OriginError(f"{name}: {says}") from None
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ProfileNotFound) as error:
        raise Denied(f"{name}: no credentials ({error}): {CREDENTIALS}") from None
    except (*_CUT, NotConnected) as error:
        says = str(error)[:300] or type(error).__name__
        remedy = "check AWS_ENDPOINT_URL and the network, then try again: what was transferred is kept"
        raise Unreachable(f"{name} does not answer ({says}): {remedy}") from None
    except (BotoCoreError, ValueError) as error:
        raise OriginError(f"{name}: {str(error)[:300]}: check the URL, AWS_ENDPOINT_URL and AWS_REGION") from None
