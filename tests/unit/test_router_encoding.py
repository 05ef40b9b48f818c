"""Step 1: bodies that come compressed are served like plain ones; those built to hurt, or that are not what they say,
are refused.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.admission.encoding import MOST_MEMBERS, named, unpack
from router.errors import BadRequest, BodyTooLarge, RouterError, UnsupportedEncoding
from tests.router_world import ADMIN_KEY, request, world

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BODY = json.dumps({"messages": [{"role": "user", "content": "hi " * 2000}]}).encode()
MOST = 1 << 20


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def streamed_zstd(data: bytes, *, window_log: int) -> bytes:
    """As an encoder writes it that does not know how long it will be."""
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})
    return packer.compress(data) + packer.flush()


WAYS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": gzip.compress,
    "deflate": zlib.compress,
    " deflate ": raw_deflate,
    "zstd": zstd.compress,
    "zstd,identity": lambda data: streamed_zstd(data, window_log=20),
    "identity": bytes,
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_compressed_body_reaches_the_replica_plain(way: str) -> None:
    async with world() as w:
        assert (await w.ask(body=WAYS[way](BODY), headers=(f"content-encoding: {way}",))).status == 200
        sent = w.replica.requests[0]
        assert json.loads(sent.body)["messages"] == json.loads(BODY)["messages"]
        assert "content-encoding" not in sent.headers
        assert w.router.uploads.used == 0


async def test_a_compressed_body_that_comes_chunked_byte_by_byte() -> None:
    async with world() as w:
        client = await w.client()
        packed = gzip.compress(BODY)
        client.send(
            request(body=b"", headers=("content-encoding: gzip",)).replace(
                b"content-length: 0", b"transfer-encoding: chunked"
            )
        )
        client.send(b"".join(b"1\r\n%c\r\n" % byte for byte in packed) + b"0\r\n\r\n")
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("way", ["br", "compress", "gzip, zstd", "gzip, gzip", "nonsense", "*", "aws-chunked"])
async def test_other_encodings_are_415_and_name_those_taken(way: str) -> None:
    async with world() as w:
        client = await w.client()
        client.send(request(body=BODY, headers=(f"content-encoding: {way}",)))
        reply = await client.answer()
        assert (reply.status, reply.error["code"]) == (415, "unsupported_encoding")
        assert "gzip, deflate, zstd" in reply.error["message"]
        assert reply.headers["accept-encoding"] == "gzip, deflate, zstd"
        assert w.router.uploads.used == 0


async def test_in_several_lines_is_as_in_one() -> None:
    async with world() as w:
        for lines in (
            ("content-encoding: gzip", "content-encoding: identity, gzip"),
            ("content-encoding: br", "content-encoding: identity"),
        ):
            assert (await w.ask(body=BODY, headers=lines)).status == 415
        client = await w.client()
        client.send(
            request(body=b"").replace(b"content-length: 0", b"transfer-encoding: gzip\r\ntransfer-encoding: chunked")
        )
        assert (await client.answer()).status == 415


async def test_packing_hop_by_hop_is_refused_and_not_taken_for_plain() -> None:
    async with world() as w:
        client = await w.client()
        packed = gzip.compress(BODY)
        client.send(
            request(body=b"").replace(b"content-length: 0", b"transfer-encoding: gzip, chunked")
            + b"%x\r\n" % len(packed)
            + packed
        )
        reply = await client.answer()
        assert (reply.status, reply.error["code"]) == (415, "unsupported_encoding")


async def test_a_stranger_is_told_nothing_about_encodings() -> None:
    async with world() as w:
        assert (await w.ask(key="wrong", headers=("content-encoding: br",))).status == 401


async def test_a_refused_body_leaves_the_connection_to_the_next() -> None:
    async with world() as w:
        client = await w.client()
        client.send(request(body=b"no gzip", headers=("content-encoding: gzip",)) + request())
        assert [(await client.answer()).status for _ in range(2)] == [400, 200]


async def test_the_admin_api_takes_none() -> None:
    async with world() as w:
        reply = await w.ask(
            url="/api/v1/endpoints/x", key=ADMIN_KEY, body=gzip.compress(b"{}"), headers=("content-encoding: gzip",)
        )
        assert (reply.status, reply.error["code"]) == (415, "unsupported_encoding")


@pytest.mark.parametrize("way", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize(("size", "fits"), [(MOST, True), (MOST + 1, False), (16 << 20, False)])
def test_no_more_is_unpacked_than_a_body_may_have(way: str, size: int, fits: bool) -> None:
    packed = WAYS[way](bytes(size))
    assert len(packed) < 100_000
    if fits:
        assert unpack(packed, way, most=MOST) == bytes(size)
    else:
        with pytest.raises(BodyTooLarge, match="once it is unpacked"):
            unpack(packed, way, most=MOST)


def test_the_parts_of_a_body_count_together() -> None:
    part = gzip.compress(bytes(MOST // 2 + 1))
    with pytest.raises(BodyTooLarge):
        unpack(part * 2, "gzip", most=MOST)


@pytest.mark.parametrize("way", ["gzip", "zstd", "deflate"])
def test_parts_in_a_row_are_one_body_up_to_a_number(way: str) -> None:
    part = WAYS[way](b"ab")
    assert unpack(part * MOST_MEMBERS, way, most=MOST) == b"ab" * MOST_MEMBERS
    with pytest.raises(BadRequest, match="in a row"):
        unpack(part * (MOST_MEMBERS + 1), way, most=MOST)


def test_a_window_larger_than_decoders_must_take_is_refused() -> None:
    data = random.Random(0).randbytes(1 << 18)
    assert unpack(streamed_zstd(data, window_log=23), "zstd", most=MOST) == data
    with pytest.raises(BadRequest, match="not the zstd"):
        unpack(streamed_zstd(data, window_log=27), "zstd", most=MOST)


@pytest.mark.parametrize("way", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize(
    "spoil", [lambda b: b[:-1], lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b + b"xx", lambda b: b"{}" + b]
)
def test_what_is_cut_or_damaged_is_400(way: str, spoil: object) -> None:
    assert callable(spoil)
    with pytest.raises(BadRequest):
        unpack(spoil(WAYS[way](BODY)), way, most=MOST)


def test_what_is_quoted_is_short() -> None:
    with pytest.raises(UnsupportedEncoding) as raised:
        named(b"x" * 5000)
    assert len(raised.value.message) < 300


@given(
    st.sampled_from(["gzip", "deflate", "zstd"]), st.binary(max_size=300), st.binary(max_size=40), st.integers(0, 300)
)
def test_any_bytes_are_a_body_or_an_error_of_ours(way: str, data: bytes, noise: bytes, at: int) -> None:
    packed = WAYS[way](data)
    assert unpack(packed, way, most=MOST) == data
    try:
        assert len(unpack(packed[:at] + noise + packed[at:], way, most=1000)) <= 1000
    except RouterError as error:
        assert error.status in (400, 413)
