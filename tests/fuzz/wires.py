"""Shared by targets that speak HTTP: a transport that only remembers, and bytes that come in segments of any size."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from router.edge.farewell import Lost


class Wire(Lost):
    """A transport to nobody. `out`: what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.out = bytearray()
        self.closing = False

    def write(self, data: object) -> None:
        if not self.closing:
            self.out += bytes(data)  # type: ignore[call-overload]

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        return

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return


def segments(data: bytes) -> Iterator[bytes]:
    """The first byte says into how many pieces, and of which sizes, the rest is cut."""
    if not data:
        return
    step, rest = data[0], data[1:]
    if step < 64 or not rest:
        yield rest
        return
    size = step % 61 + 1
    for at in range(0, len(rest), size):
        yield rest[at : at + size]


def turn(loop: asyncio.AbstractEventLoop, times: int = 4) -> None:
    """Let what was put off happen."""
    for _ in range(times):
        loop.call_soon(loop.stop)
        loop.run_forever()
