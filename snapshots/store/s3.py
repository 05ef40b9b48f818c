"""The store that is a bucket: S3 and everything that speaks it. Step 9.

    <prefix>/sha256-<64 hex>/<path>           each object's metadata `sha256` is the SHA-256 of its content
    <prefix>/sha256-<64 hex>/manifest.json    written last: a snapshot without it is none

Endpoint, region and credentials come from where AWS' own tools take them (AWS_ENDPOINT_URL, AWS_PROFILE, …). It must
survive a store that resets, stalls or lies: requests are repeated by botocore, bodies cut short by us, and what cannot be
is an error that says what to do. Whether bytes are good is for the reader to judge (`transfer.py`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
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

from snapshots.errors import Denied, NoBucket, NotStored, OriginError, TamperedError, Unreachable
from snapshots.manifest import LARGEST_MANIFEST, MANIFEST, digest_of_folder, folder_name
from snapshots.store.origin import PUSH

CONNECTIONS = 32
READ_TRIES = 4  # bodies cut short
CONNECT_TIMEOUT = 5.0  # s
READ_TIMEOUT = 30.0  # s without a byte
ATTEMPTS = 3  # of each request, by botocore, with growing pauses
_URL = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?", re.ASCII)
_CUT = (aiohttp.ClientError, TimeoutError, HTTPClientError, IncompleteReadError, ConnectionResetError)
_DENIED = {"AccessDenied", "403", "401", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AllAccessDisabled"}
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
        retries={"mode": "standard", "max_attempts": ATTEMPTS},
        request_checksum_calculation="when_required",  # stores that only speak S3 do not all know the newer checksums
        response_checksum_validation="when_required",
    )
    async with AsyncExitStack() as stack:
        with translated(url):
            client = await stack.enter_async_context(get_session().create_client("s3", config=config))
        yield Bucket(client, match["bucket"], (match["prefix"] or "").strip("/"))


class Bucket:
    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self.client, self.bucket, self._prefix = client, bucket, f"{prefix}/" if prefix else ""
        self.name = f"s3://{bucket}/{prefix}".rstrip("/")

    def key(self, digest: str, path: str = "") -> str:
        return f"{self._prefix}{folder_name(digest)}/{path}"

    async def digests(self) -> list[str]:
        found: list[str] = []
        with translated(self.name):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._prefix, Delimiter="/")
            async for page in pages:
                names = [entry["Prefix"].removeprefix(self._prefix).rstrip("/") for entry in page.get("CommonPrefixes", ())]
                found += [digest for name in names if (digest := digest_of_folder(name))]
        slots = asyncio.Semaphore(CONNECTIONS)

        async def whole(digest: str) -> bool:
            async with slots:
                return await self.head(self.key(digest, MANIFEST)) is not None

        there = await asyncio.gather(*map(whole, found))
        return sorted(digest for digest, is_whole in zip(found, there, strict=True) if is_whole)

    async def manifest(self, digest: str) -> bytes:
        try:
            return await self.read(digest, MANIFEST, 0, LARGEST_MANIFEST + 1)
        except TamperedError:
            raise NotStored(f"snapshot {digest} is not in {self.name}: push it there first (`pilotlight snapshot push`)") from None

    async def read(self, digest: str, path: str, begin: int, length: int) -> bytes:
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
                        if response.get("ContentLength", 0) > length:
                            return b""  # it did not hear how much was asked for: nothing to hold in memory
                        content: bytes = await body.read()
                        return content
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
            raise NoBucket(f"{name}: there is no such bucket; make it, or correct the name or AWS_ENDPOINT_URL") from None
        if code in _DENIED:
            raise Denied(f"{name} refuses ({code}): {CREDENTIALS}") from None
        if int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) >= 500 or code in ("SlowDown", "RequestTimeout"):
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
