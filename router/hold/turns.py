"""Takes a place in the line at a full replica's gate (`runtime/serving/line.py`), for the request that has waited here
longest. Step 5.

The request stays in the hold meanwhile, with its deadline and its comments; the gate knows only how long it has waited.
Three failures to survive. A kept connection had gone stale: once more, on a new one. A gate drains or dies while we
stand in its line. A gate is of the release before, and has no line: then the hold tries again after a moment.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from router.hold.pool import Pool, Upstream
from router.hold.replicas import Replica
from runtime.wire import ROUTER_HEADER, TURN_HEADER, TURN_PATH, WAITED_HEADER

News = Callable[[bytes | None, bool], None]  # (the turn or None, whether the gate drains)
_ASK = (
    f"POST {TURN_PATH} HTTP/1.1\r\nhost: pilotlight\r\ncontent-length: 0\r\n"
    f"{ROUTER_HEADER}: {secrets.token_hex(8)}\r\n{WAITED_HEADER}: %.3f\r\n\r\n"
).encode()


def stand_in_line(replica: Replica, waited: float, news: News) -> Turn:
    """`news` is called once, later, unless the place is given up before. `waited`: seconds."""
    return Turn(replica.pool, waited, news)


class Turn:
    __slots__ = ("_connecting", "_news", "_pool", "_request", "_retried", "_upstream")

    def __init__(self, pool: Pool, waited: float, news: News) -> None:
        self._pool = pool
        self._news = news
        self._request = _ASK % waited
        self._connecting: asyncio.Task[None] | None = None
        self._retried = False
        self._upstream = pool.reuse()
        if self._upstream is not None:
            self._upstream.send(self, self._request)
        else:
            self._connect()

    def cancel(self) -> None:
        """Leave the line: the gate sees the connection close."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._upstream is not None:
            self._upstream.abort(self)

    def _connect(self) -> None:
        self._connecting = asyncio.get_running_loop().create_task(self._connected(), name="stand in line")

    async def _connected(self) -> None:
        try:
            upstream = await self._pool.connect()
        except (OSError, ValueError):  # AddressError is a ValueError, TimeoutError an OSError
            self._connecting = None
            self._news(None, False)
            return
        self._connecting, self._upstream = None, upstream
        upstream.send(self, self._request)

    # The upstream's news

    def received(self, upstream: Upstream, segment: bytes, head: bool) -> None:
        upstream.read(partial=True)
        if upstream.done:
            fields = dict(upstream.headers)
            turn = fields.get(TURN_HEADER.encode()) if upstream.status == 200 else None
            self._news(turn, fields.get(b"x-pilotlight-refused") == b"draining")

    def lost(self, upstream: Upstream, why: str, *, closed: bool) -> None:
        self._upstream = None
        if closed and upstream.reused and not upstream.heard and not self._retried:
            self._retried = True
            self._connect()
        else:
            self._news(None, False)
