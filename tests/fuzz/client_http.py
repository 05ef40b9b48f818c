"""What a client sends: fed to the protocol of a connection, in segments of any size, with a key or without.

Whatever it is, each answer is whole HTTP, nothing of it is kept beyond its bound, and when the connection is lost
nothing is left.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import httptools
import uvicorn
from uvicorn.server import ServerState

from pilotlight.keys import hash_key
from router.admission.auth import Keys
from router.edge.exchange import ClientLimits
from router.edge.protocol import MOST_STASHED, RouterProtocol
from router.edge.web import asgi_app
from router.hold.hold import Hold
from router.hold.table import RouteTable
from router.ledger.wire import KeyRow, Policy
from router.metrics import Metrics
from router.shared import Router
from tests.fuzz.wires import Wire, segments, turn

KEY = "pl_fuzz"
PEPPER = b"p" * 32
CALL = b"POST /e/t/v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer pl_fuzz\r\n"
LIMITS = ClientLimits(
    max_body=1 << 16, header_seconds=10.0, keep_alive_seconds=75.0, upload_seconds=120.0, unread_seconds=60.0
)

SEEDS = (
    b"\x00GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
    b'\x00POST /e/t/v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{"a":"b"}GET / HTTP/1.0\r\n\r\n',
    b"\x50" + CALL + b'content-length: 14\r\n\r\n{"prompt":"a"}',
    b"\x00" + CALL + b'transfer-encoding: chunked\r\n\r\n5;x=y\r\n{"pro\r\n9\r\nmpt":"a"}\r\n0\r\nt: u\r\n\r\n',
    b"\x7fPOST /api/v1/keys HTTP/1.1\r\nhost: [::1]:8443\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc",
    b"\x00GET http://h:1/v1/models?x=%41 HTTP/1.1\r\nhost: h\r\nconnection: Upgrade, close\r\nupgrade: h2c\r\n\r\n",
    b"\x00OPTIONS * HTTP/1.1\r\nhost: x\r\norigin: https://a.example\r\n\r\nCONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"\x00" + CALL + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\n\x1f\x8b\x08",
)

_loop = asyncio.new_event_loop()


def _router() -> Router:
    keys = Keys(pepper=PEPPER, wall=time.time)
    row = KeyRow(hash=hash_key(PEPPER, KEY).hex(), key_id="k", org_id="o", endpoint_id="e", scope="inference")
    keys.replace(Policy(version=1, keys=(row,)))
    hold = Hold(clock=_loop, max_bytes=1 << 20, changed=lambda revision, urgent: None)
    table = RouteTable(clock=_loop, hold=hold)
    return Router(keys=keys, table=table, hold=hold, spool=cast(Any, None), metrics=Metrics(), clock=_loop)


ROUTER = _router()
CONFIG = uvicorn.Config(
    asgi_app(ROUTER, admin="unix:/nonexistent/admin.sock"), ws="none", log_config=None, access_log=False, lifespan="off"
)
CONFIG.load()


class Answers:
    """Counts the whole answers in what was written."""

    def __init__(self) -> None:
        self.whole = 0
        self.begun = False

    def on_message_begin(self) -> None:
        self.begun = True

    def on_message_complete(self) -> None:
        self.whole += 1
        self.begun = False


def target(data: bytes) -> None:
    state = ServerState()
    asyncio.set_event_loop(_loop)
    protocol = RouterProtocol(CONFIG, state, {}, _loop, router=ROUTER, limits=LIMITS)
    wire = Wire()
    protocol.connection_made(wire)
    for piece in segments(data):
        if wire.closing:
            break
        protocol.data_received(piece)
        turn(_loop, 1)
        if len(protocol._stash) > MOST_STASHED:
            raise AssertionError(f"{len(protocol._stash)} bytes are kept ahead of their turn")
    turn(_loop)
    protocol.connection_lost(None)
    turn(_loop)
    if state.connections or ROUTER.uploads.used or ROUTER.unread.used:
        raise AssertionError("something is left of a lost connection")
    _check(bytes(wire.out), head=b"HEAD " in data)


def _check(out: bytes, *, head: bool) -> None:
    if head or b"HTTP/1.1 304" in out:
        return  # their lengths are of bodies that do not come
    answers = Answers()
    parser = httptools.HttpResponseParser(answers)
    parser.feed_data(out.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""))
    if answers.begun:
        raise AssertionError("an answer is not whole")
