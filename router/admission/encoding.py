"""Unpacks bodies that come compressed (`Content-Encoding: gzip`, `deflate` or `zstd`), before anything reads them. Step
1.

A body is unpacked in one go once it is all here, so that no decompressor outlives the call that feeds it. What a client
has waiting here is the bytes it sent, and those are counted. The failures to survive are bodies built to hurt. A few
kilobytes become gigabytes: unpacking stops one byte over the limit. A window has gigabytes: it is refused from the
frame's head. There are thousands of empty members in a row, one that is cut off, or one that is not what it says.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from router.errors import BadRequest, BodyTooLarge, UnsupportedEncoding, quoted

GZIP, ZLIB, RAW = 31, 15, -15  # zlib's window bits: of gzip members only; of zlib's own format; without any head
MOST_MEMBERS = 64  # gzip members or zstd frames in one body; each costs a decompressor
LARGEST_WINDOW = (
    23  # of zstd, as a power of two: 8 MiB, what RFC 8878 asks every decoder to take, and most encoders stay below
)
ENCODINGS = ("gzip", "deflate", "zstd")


class _Unpacker(Protocol):
    """zlib's and zstd's decompressors, as far as they are alike."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


def named(value: bytes | None) -> str:
    """The encoding that `Content-Encoding` names, empty for none. Raises UnsupportedEncoding for what is not taken, and
    for several.
    """
    names = [
        name
        for part in (value or b"").decode("latin-1").split(",")
        if (name := part.strip().lower()) not in ("", "identity")
    ]
    if not names:
        return ""
    name = names[0].removeprefix("x-")
    if len(names) > 1 or name not in ENCODINGS:
        raise UnsupportedEncoding(
            f"A body encoded as '{quoted(', '.join(names))}' is not taken. Send it plain, or with one Content-Encoding of {', '.join(ENCODINGS)}."
        )
    return name


def framed(value: bytes | None) -> None:
    """Raises UnsupportedEncoding where `Transfer-Encoding` names more than chunks: what is packed hop by hop we would
    take for plain.
    """
    if value is not None and value.strip().lower() != b"chunked":
        raise UnsupportedEncoding(
            f"A body sent with Transfer-Encoding '{quoted(value.decode('latin-1'))}' is not taken. Compress it with Content-Encoding instead."
        )


def unpack(body: bytes, encoding: str, *, most: int) -> bytes:
    """The body as it was before. Raises BodyTooLarge when that is over `most` bytes, BadRequest when it is not of this
    encoding.
    """
    out: list[bytes] = []
    size, rest, members = 0, body, 0
    start = _starts(encoding, body)
    try:
        while rest or not members:
            if members == MOST_MEMBERS:
                raise BadRequest(
                    f"The body has more than {MOST_MEMBERS} {encoding} parts in a row. Compress it in one."
                )
            unpacker = start()
            piece = unpacker.decompress(rest, most + 1 - size)
            size, members = size + len(piece), members + 1
            if size > most:
                raise BodyTooLarge(
                    f"The body is larger than {most} bytes once it is unpacked, this server's limit (router.max_body_bytes). Send less."
                )
            if not unpacker.eof:
                raise BadRequest(f"The {encoding} body ends in its middle. Send all of it.")
            out.append(piece)
            rest = unpacker.unused_data
    except _errors(encoding) as error:
        raise BadRequest(
            f"The body is not the {encoding} that its Content-Encoding says ({quoted(str(error))}). Encode it so, or leave the header out."
        ) from error
    return out[0] if len(out) == 1 else b"".join(out)


def _starts(encoding: str, body: bytes) -> Callable[[], _Unpacker]:
    if encoding == "zstd":
        zstd = _zstd()
        limit: dict[int, int] = {zstd.DecompressionParameter.window_log_max: LARGEST_WINDOW}
        return lambda: zstd.ZstdDecompressor(options=limit)
    if encoding == "gzip":
        return lambda: zlib.decompressobj(GZIP)
    # "deflate" is both in the wild
    window = ZLIB if len(body) > 1 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0 else RAW
    return lambda: zlib.decompressobj(window)


def _errors(encoding: str) -> tuple[type[Exception], ...]:
    """What is raised for a body that is not of this encoding."""
    return (_zstd().ZstdError,) if encoding == "zstd" else (zlib.error,)


def _zstd() -> Any:
    """Loaded by the first body that comes so: few do, and it takes half a megabyte of every worker."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
