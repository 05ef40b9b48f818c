"""Orders to standbys: to fork a replica, and to look at arguments. Step 8.

`fork` asks for the outcome. It returns when the order is in a rehearsed standby's socket, however long the rehearsal
still takes, and however full that socket is. Orders are given one after the other, first come, first served. An order
that trusts nothing kept gets a standby of its own, made beside the others. Only then may that one take the place of
another, so that what one endpoint distrusts costs no other its wake. The failure to survive is a standby that dies with
an order in hand. It closes the replica's control socket with it, which the caller sees before any `Born`.
"""

from __future__ import annotations

import asyncio
import socket

from runtime.control import Check, Fork
from runtime.node.standby import Standby
from runtime.node.standby_pool import StandbyPool


class ForkOrders:
    """Gives orders to the standbys of one pool, one after the other."""

    def __init__(self, pool: StandbyPool) -> None:
        self._pool = pool
        self._turn = asyncio.Lock()  # of the one order that is given next

    @property
    def ready(self) -> bool:
        """A standby would take an order at once."""
        return bool(self._pool.ready())

    async def fork(self, order: Fork, replica_end: socket.socket, *, fresh: bool = False) -> None:
        """Give the order, and the replica's end of its control socket, to a rehearsed standby; `fresh`: to one made for
        it.

        Raises OSError, and ChildProcessError where the one that was made did not come to be rehearsed.
        """
        if fresh:
            await self._fork_beside(order, replica_end)
            return
        with self._pool.needed():
            async with self._turn:
                while not self._give(order, replica_end):
                    self._pool.news.clear()
                    await self._pool.news.wait()

    def check(self, order: Check) -> bool:
        """Have a rehearsed standby look at arguments; the pool hears its answer. False where there is none to ask."""
        for standby in self._pool.ready():
            try:
                if standby.control.send(order):
                    return True
            except BlockingIOError:
                continue
        return False

    def done_with(self, replica_id: str) -> None:
        """This replica is born, or given up."""
        for standby in self._pool.all():
            standby.done_with(replica_id)

    async def _fork_beside(self, order: Fork, replica_end: socket.socket) -> None:
        standby = self._pool.start_beside()
        try:
            await standby.decided.wait()
            if standby.rehearsed is None:
                raise ChildProcessError(
                    f"the standby made for this start alone ended before it was rehearsed: {self._pool.reason or 'see its log'}"
                )
            standby.give(order, replica_end)
            self._pool.keep_beside(standby)
        finally:
            if standby.beside and standby in self._pool.all():
                self._pool.retire(standby)

    def _give(self, order: Fork, replica_end: socket.socket) -> bool:
        """False where no standby can take it now; the pool's `news` says when to try again. Raises OSError."""
        for standby in self._pool.ready():
            try:
                if standby.give(order, replica_end):
                    return True
            except BlockingIOError:
                asyncio.get_running_loop().add_writer(standby.control.sock, self._has_room, standby)
        return False

    def _has_room(self, standby: Standby) -> None:
        asyncio.get_running_loop().remove_writer(standby.control.sock)
        self._pool.news.set()
