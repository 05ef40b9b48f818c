"""Accepts connections, counts them before a byte of theirs is read, and has TLS' handshake done within its time. Before
step 1.

uvicorn's own server begins to count after the handshake, and gives that a minute. One handshake is begun a turn of the
loop, whoever comes: those inside are served between them. The failures to survive: connections that say nothing, more
of them than there is room or descriptors for, and floods of handshakes. Clients may speak HTTP where TLS is spoken:
they are told. A process may have no descriptor left: it accepts again a moment later.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Protocol, cast

import structlog

from router import errors
from router.admission.doorstep import Doorstep
from router.admission.rates import Rates
from router.admission.visitors import LOCAL, Standing, Visitors, household
from router.errors import BadRequest

AT_ONCE = 8  # connections accepted before the loop goes on with others' work
AGAIN_SECONDS = 1.0  # after accepting failed for lack of descriptors or memory
HANDSHAKE = 22  # the first byte of every TLS connection
LINGER_SECONDS = 1.0  # for a client that is told that it speaks the wrong protocol

log = structlog.get_logger()


class Guest(Protocol):
    """The protocol of a connection: once connected, it is its visit's guest, and when it is lost it says so to it."""

    visit: Visit | None

    @property
    def standing(self) -> Standing: ...

    def give_way(self) -> None: ...


class Visit:
    """One connection, from its acceptance to its end."""

    __slots__ = ("_connection", "_proven", "address", "greeting", "guest", "porter", "visitors")

    def __init__(self, visitors: Visitors, porter: Porter, connection: socket.socket, address: str) -> None:
        self.visitors = visitors
        self.porter = porter
        self._connection = connection
        self.address = address
        self._proven = False
        self.guest: Guest | None = None
        self.greeting: asyncio.Task[None] | None = None

    @property
    def standing(self) -> Standing:
        return self.guest.standing if self.guest is not None else "idle"

    def give_way(self) -> None:
        if self.guest is not None:
            self.guest.give_way()
        elif self.greeting is not None:
            self.greeting.cancel()
        else:
            self._connection.close()

    def proven(self) -> None:
        """A key that came by it was accepted. Later calls do nothing."""
        if not self._proven:
            self._proven = True
            self.porter.earned(self.address)

    def over(self) -> None:
        """The connection is lost."""
        self.guest = None
        self.visitors.leave(self)


class Porter:
    """All doors' of a worker: says when a connection may begin its handshake. `rates`: of connections that bring no
    key, by address.
    """

    def __init__(self, rates: Rates | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self.step: Doorstep[asyncio.Future[None]] = Doorstep(Rates(0.0) if rates is None else rates)
        self._next: asyncio.Handle | None = None
        self._due = 0.0  # when `_next` is called; 0.0: in the loop's next turn

    async def wait(self, address: str) -> None:
        """Its turn has come."""
        ready: asyncio.Future[None] = self._loop.create_future()
        self.step.come(address, ready)
        self._go_on()
        try:
            await ready
        finally:
            self.step.leave(ready)

    def earned(self, address: str) -> None:
        self.step.earned(address, self._loop.time())
        self._go_on()

    def close(self) -> None:
        if self._next is not None:
            self._next.cancel()

    def _go_on(self) -> None:
        """Whoever waits for a rate may be there when another comes."""
        if self._next is not None and self._due:
            self._next.cancel()
            self._next = None
        if self._next is None and len(self.step):
            self._due, self._next = 0.0, self._loop.call_soon(self._call)

    def _call(self) -> None:
        self._next = None
        ready = self.step.next(self._loop.time())
        if ready is not None:
            _set(ready)
            self._go_on()
        elif (due := self.step.due()) is not None:
            self._due, self._next = due, self._loop.call_at(due, self._call)


class Door:
    """One listener's. `make` gives the protocol of a connection; `context` what TLS is done with just now, None for
    plain HTTP. `is_proxy`: whether an address is a trusted proxy's, whose connections are many callers'.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        make: Callable[[], Guest],
        visitors: Visitors,
        handshake_seconds: float,
        context: Callable[[], ssl.SSLContext | None],
        is_proxy: Callable[[str], bool] = lambda address: False,
        porter: Porter | None = None,
    ) -> None:
        self._listener = listener
        self._make = make
        self._visitors = visitors
        self._handshake_seconds = handshake_seconds
        self._context = context
        self._is_proxy = is_proxy
        self._porter = porter or Porter()
        self._loop = asyncio.get_running_loop()
        self._greetings: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        listener.setblocking(False)

    def open(self) -> Door:
        self._again = None
        self._loop.add_reader(self._listener.fileno(), self._accept)
        return self

    def close(self) -> None:
        """Nobody comes in any more; who is inside stays."""
        if self._again is not None:
            self._again.cancel()
        elif self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
        for greeting in self._greetings:
            greeting.cancel()

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._greetings, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, address = self._listener.accept()
            except (
                BlockingIOError,
                ConnectionError,
                InterruptedError,
            ):  # another worker has it, or it has left already
                return
            except OSError as error:
                log.error("no connection can be accepted; trying again", action="accept", reason=str(error))
                self._loop.remove_reader(self._listener.fileno())
                self._again = self._loop.call_later(AGAIN_SECONDS, self.open)
                return
            peer = address[0] if isinstance(address, tuple) else LOCAL
            self._enter(connection, LOCAL if self._is_proxy(peer) else household(peer))

    def _enter(self, connection: socket.socket, address: str) -> None:
        connection.setblocking(False)
        visit = Visit(self._visitors, self._porter, connection, address)
        if not self._visitors.enter(address, visit):
            connection.close()
            return
        visit.greeting = greeting = self._loop.create_task(self._greet(visit, connection), name="greet a client")
        self._greetings.add(greeting)
        greeting.add_done_callback(self._greetings.discard)

    async def _greet(self, visit: Visit, connection: socket.socket) -> None:
        """Until its protocol has it, or it is gone."""
        try:
            async with asyncio.timeout(self._handshake_seconds):
                await self._establish(visit, connection)
        except (
            OSError,
            ssl.SSLError,
            TimeoutError,
        ):  # whoever it was does not speak TLS, or does not trust us, or has left
            pass
        finally:
            if visit.guest is None:
                connection.close()
                visit.over()
            visit.greeting = None

    async def _establish(self, visit: Visit, connection: socket.socket) -> None:
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = self._context()
        if context is not None and (first := await self._first_byte(connection)) != HANDSHAKE:
            if first is not None and self._porter.step.spend(visit.address, self._loop.time()):
                await self._tell(connection)
            return
        if context is not None:
            await self._porter.wait(visit.address)

        # called before the handshake; it is `visit.guest` from its `connection_made` on
        def made() -> asyncio.Protocol:
            guest = self._make()
            guest.visit = visit
            return cast(asyncio.Protocol, guest)

        times = {"ssl_handshake_timeout": self._handshake_seconds} if context is not None else {}
        await self._loop.connect_accepted_socket(made, connection, ssl=context, **times)

    async def _first_byte(self, connection: socket.socket) -> int | None:
        """Looked at, and left where it is. None: it has left."""
        await self._readable(connection)
        seen = connection.recv(1, socket.MSG_PEEK)
        return seen[0] if seen else None

    async def _readable(self, connection: socket.socket) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(connection.fileno(), _set, ready)
        try:
            await ready
        finally:
            self._loop.remove_reader(connection.fileno())

    async def _tell(self, connection: socket.socket) -> None:
        """That this port speaks HTTPS; then what still comes is read for a moment, or the answer is lost in a reset."""
        peer = BadRequest("This port speaks HTTPS, and this was none. Begin the URL with https://.")
        connection.send(errors.answer(peer, keep_alive=False))
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while True:
                    await self._readable(connection)
                    if not connection.recv(64 << 10):
                        return


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
