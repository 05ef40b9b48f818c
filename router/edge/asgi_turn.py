"""A request for the ASGI application, as uvicorn's own cycle, in its turn on its connection. Step 1, the other branch.

Only the admin process reads a body; all others are passed over. Reading is never paused, so that a client that leaves
is seen at once. What waits for the admin process is bounded and counted instead. Three failures to survive. A client is
answered before its body is all here. It never sends the rest. A stranger sends a large one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import unquote

from uvicorn._types import ASGI3Application, ASGIReceiveEvent, ASGISendEvent, HTTPScope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from router.admission.admin_reach import is_relayed
from router.admission.auth import authorization
from router.admission.request import expects_continue
from router.admission.strangers import OPEN
from router.admission.visitors import STRANGERS, Standing
from router.edge.exchange import MOST_DISCARDED, ClientLimits, too_large
from router.edge.farewell import LOST
from router.errors import QueueFull, Refused, RouterError
from router.shared import Router


class Connection(Protocol):
    """What such a request needs of its connection."""

    app: ASGI3Application
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    flow: FlowControl
    server_state: ServerState
    logger: Any
    access_logger: Any
    server: tuple[str, int | None] | None
    client: tuple[str, int] | None
    scheme: Any
    peer: str  # its address, or LOCAL
    patient: bool  # whether it is kept although its requests bring no good key

    def proven(self) -> None: ...

    def strange(self, error: RouterError) -> RouterError: ...

    def turn_over(self) -> None: ...

    def broken_off(self) -> None: ...


class Head(NamedTuple):
    """`url` in origin form."""

    method: str
    url: bytes
    headers: list[tuple[bytes, bytes]]
    version: str


def scope_of(head: Head, connection: Connection) -> HTTPScope:
    """What the application is told of a request."""
    raw, _, query = head.url.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": head.version,
        "server": connection.server,
        "client": connection.client,
        "scheme": connection.scheme,
        "method": head.method,
        "root_path": "",
        "path": unquote(raw.decode("ascii")),
        "raw_path": raw,
        "query_string": query,
        "headers": head.headers,
        "state": {},
    }


class AsgiTurn:
    """One such request, from its head to its answer."""

    __slots__ = (
        "_begun",
        "_connection",
        "_known",
        "_limits",
        "_most",
        "_router",
        "_size",
        "_stranger",
        "_wanted",
        "cycle",
        "user",
    )

    def __init__(
        self,
        connection: Connection,
        router: Router,
        limits: ClientLimits,
        head: Head,
        *,
        keep_alive: bool,
    ) -> None:
        self._connection = connection
        self._router = router
        self._limits = limits
        scope, headers = scope_of(head, connection), head.headers
        self._size, self._begun = 0, False
        self.user = STRANGERS  # as who it shares what all have
        self._stranger: RouterError | None = None  # what whoever has no valid key is told
        self._wanted = is_relayed(scope["path"])
        self._known: bool | None = None
        # a stranger may send a form, no more
        self._most = limits.max_body if self._wanted and self._knows(headers) else MOST_DISCARDED
        expects = expects_continue(headers)
        sized = dict(headers).get(b"content-length")
        endless = any(name == b"transfer-encoding" for name, _ in headers)
        passed_over = expects or endless or int(sized or 0) > MOST_DISCARDED
        self.cycle = Cycle(
            scope=scope,
            transport=cast(asyncio.Transport, Way(self)),
            flow=connection.flow,
            logger=connection.logger,
            access_logger=connection.access_logger,
            access_log=False,
            default_headers=connection.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=expects,
            keep_alive=keep_alive and (self._wanted or not passed_over),
            on_response=self._over,
        )
        self.cycle.turn = self

    @property
    def keep_alive(self) -> bool:
        return self.cycle.keep_alive

    @keep_alive.setter
    def keep_alive(self, keep: bool) -> None:
        self.cycle.keep_alive = keep

    @property
    def standing(self) -> Standing:
        """Whether it may be cut for others: a stranger's may, and what is no admin call is done in a moment."""
        return (
            "idle"
            if self._stranger is not None or not self._wanted
            else "sending"
            if self.cycle.more_body
            else "served"
        )

    @property
    def answered(self) -> bool:
        return self.cycle.response_complete

    @property
    def known(self) -> bool:
        """Whether it has a good key."""
        return self._knows(self.cycle.scope["headers"]) if self._known is None else self._known

    def check(self) -> None:
        """Raises where the body that the head tells of will be too long, or too many such requests came from there."""
        scope = self.cycle.scope
        limited = self._router.strangers.turned_away(self._connection.peer, scope["headers"])
        if limited is not None and scope["path"] not in OPEN and not self.known:
            raise limited
        sized = dict(scope["headers"]).get(b"content-length")
        if self._wanted and sized is not None and int(sized) > self._most:
            raise self._too_much()

    def about_to_answer(self, status: int) -> None:
        """It is about to be answered so."""
        if status < 400 and self.known:
            self._connection.proven()
        elif 400 <= status < 500 and not self.known:
            self._connection.strange(Refused(""))
            self.keep_alive = self.keep_alive and self._connection.patient

    def begin(self) -> None:
        """Its turn has come."""
        self._begun = True
        connection = self._connection
        task = connection.loop.create_task(self.cycle.run_asgi(connection.app))
        connection.server_state.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._connection.server_state.tasks.discard(task)
        self._let_go()

    def _let_go(self) -> None:
        """The cycle refers to us, and we to it: it would keep a lost connection, and all that TLS has read for it."""
        self.cycle.turn = None
        self.cycle.transport = LOST
        self.cycle.flow = FlowControl(LOST)
        self.cycle.on_response = _nothing

    def add(self, body: bytes) -> bool:
        """More of the body. Returns False when nothing more is to be read on this connection. Raises RouterError where
        it is too much.
        """
        self._size += len(body)
        if not self._wanted or self.answered:
            if self._size <= MOST_DISCARDED:
                return True
            if not self.cycle.response_started:
                self.keep_alive = False
            return False
        if self._size > self._most:
            raise self._too_much()
        if not self._router.uploads.add(self.user, self, len(body)):
            raise QueueFull("This router is receiving as many bytes as it may hold. Try again in a moment.")
        self.cycle.body += body
        self.cycle.message_event.set()
        return True

    def received(self) -> None:
        """The body is whole."""
        if not self.answered:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def consumed(self, size: int) -> None:
        """The application has so much of the body."""
        self._router.uploads.less(self, size)

    def give_way(self) -> None:
        """More is coming in than there is room for."""
        self._connection.broken_off()

    def gone(self) -> None:
        """Nobody waits for its answer any more."""
        self._router.uploads.drop(self)
        self.cycle.body = bytearray()
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        if not self._begun:
            self._let_go()

    def _over(self) -> None:
        self._router.uploads.drop(self)
        self.cycle.body = bytearray()
        self._connection.turn_over()

    def _knows(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        try:
            self.user, self._known = self._router.keys.tenant(authorization(dict(headers))).user, True
        except RouterError as error:
            self._stranger, self._known = error.with_traceback(None), False  # whose frames refer to us
        return self._known

    def _too_much(self) -> RouterError:
        return self._stranger or too_large(self._limits)


def _nothing() -> None:
    """There is nobody to tell."""


class Cycle(RequestResponseCycle):
    """uvicorn's, which tells how much of the body was taken, and what is answered."""

    turn: AsgiTurn | None

    async def receive(self) -> ASGIReceiveEvent:
        message = await super().receive()
        if message["type"] == "http.request" and self.turn is not None:
            self.turn.consumed(len(message["body"]))
        return message

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start" and self.turn is not None:
            self.turn.about_to_answer(message["status"])
        await super().send(message)


class Way:
    """The transport as such a cycle has it: closing is the connection's, which gives a client that still sends time
    to read its answer.
    """

    __slots__ = ("_turn",)

    def __init__(self, turn: AsgiTurn) -> None:
        self._turn = turn

    def write(self, data: bytes) -> None:
        self._turn._connection.transport.write(data)

    def is_closing(self) -> bool:
        return self._turn._connection.transport.is_closing()

    def close(self) -> None:
        """After the whole answer this does nothing: the end of the turn closes, where it has to."""
        if not self._turn.answered:
            self._turn._connection.broken_off()
