"""Ends a connection: closes it once what was written is read, and cuts it where that is not to be. Step 1.

    open ──begin: all is answered, or the client left──→ closing ──over: it is lost──→ gone
                                                            │  ↑
                                       each GOODBYE_SECONDS └──┘ while the client still reads;
                                       cut once it has read all, or `unread_seconds` are over

Closing waits. TLS waits 30 s for the client's goodbye, which idle clients never say. Any transport waits for ever for a
client that does not read. Neither may hold a connection, or the end of the server.
"""

from __future__ import annotations

import asyncio

GOODBYE_SECONDS = 0.5  # for a client that has read everything


class Farewell:
    """`unread_seconds`: how long what was written waits to be read."""

    __slots__ = ("_cut_at", "_loop", "_timer", "_transport", "_unread_seconds")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, *, unread_seconds: float) -> None:
        self._transport = transport
        self._loop = loop
        self._unread_seconds = unread_seconds
        self._cut_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Close. Later calls do nothing."""
        self._transport.close()
        if not self._cut_at:
            self._cut_at = self._loop.time() + self._unread_seconds
            self._wait()

    def over(self) -> None:
        """The connection is lost."""
        self._transport = LOST
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        self._timer = self._loop.call_later(GOODBYE_SECONDS, self._look)

    def _look(self) -> None:
        if self._transport.get_write_buffer_size() and self._loop.time() < self._cut_at:
            self._wait()
        else:
            self._transport.abort()


class Lost(asyncio.Transport):
    """What a connection has for a transport once it is lost. A transport refers to its protocol: with the real one
    both, and all that TLS had read for them, would stay until somebody looks for cycles, which is rarely.
    """

    def write(self, data: object) -> None:
        return

    def is_closing(self) -> bool:
        return True

    def close(self) -> None:
        return

    def abort(self) -> None:
        return

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        return

    def resume_reading(self) -> None:
        return


LOST = Lost()
