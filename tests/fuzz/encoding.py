"""Bodies that come compressed: whatever the bytes are, they unpack to no more than may be, or are refused by an error
of ours.
"""

from __future__ import annotations

import gzip
import zlib

from router.admission.encoding import ENCODINGS, framed, named, unpack
from router.errors import BodyTooLarge, Refused

MOST = 1 << 16
ZSTD = bytes.fromhex("28b52ffd2003190000616263")  # "abc"
SEEDS = (
    b"\x00" + gzip.compress(b"{}"),
    b"\x00" + gzip.compress(bytes(MOST + 1)),
    b"\x01" + zlib.compress(b"{}"),
    b"\x02" + ZSTD,
    b"\x02gzip, identity",
)


def target(data: bytes) -> None:
    """The first byte chooses the encoding; the rest is the body, and the value of the headers."""
    if not data:
        return
    try:
        assert len(unpack(data[1:], ENCODINGS[data[0] % len(ENCODINGS)], most=MOST)) <= MOST
    except Refused as error:
        assert error.status in (400, BodyTooLarge.status)
    for check in (named, framed):
        try:
            check(data[1:])
        except Refused as error:
            assert error.status == 415
            assert len(error.message) < 400
