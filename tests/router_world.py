"""A whole router worker in the test's own loop, with one fake replica behind it, and a client that speaks raw HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from activator.wire import EndpointRow, ReplicaRow, RevisionRow, Table
from pilotlight.keys import hash_key, mint
from router.admission.admin_reach import Reach
from router.admission.auth import Keys
from router.admission.body_reader import Reads
from router.edge.exchange import ClientLimits
from router.edge.protocol import RouterProtocol
from router.edge.web import asgi_app
from router.hold.hold import Hold
from router.hold.replicas import Revision
from router.hold.table import RouteTable
from router.hold.turns import stand_in_line
from router.ledger.wire import KeyRow, Policy
from router.ledger.worker_locks import Workers
from router.metrics import Metrics
from router.shared import Router
from router.spool.spool import Spool
from runtime.tasks import Task
from runtime.wire import Phase
from tests.fakes import FakeReplica

PEPPER = b"p" * 32
PATIENCE = 20.0  # seconds, for what takes milliseconds on a machine that is not busy with much else
KEY, OTHER_KEY, ADMIN_KEY, OLD_KEY = mint(), mint(), mint(), mint()


def nobody() -> Workers:
    """The ledger's view of workers where none holds a lock."""
    return Workers(locked=lambda worker: False, keeps_locks=lambda worker: True)


def key_row(key: str, endpoint_id: str, *, scope: Any = "inference", expires_at: float = 0.0) -> KeyRow:
    digest = hash_key(PEPPER, key).hex()
    return KeyRow(
        hash=digest,
        key_id="key-" + key[-4:],
        org_id="default",
        endpoint_id=endpoint_id,
        scope=scope,
        expires_at=expires_at,
    )


POLICY = Policy(
    version=1,
    keys=(
        key_row(KEY, "e1"),
        key_row(OTHER_KEY, "e2"),
        key_row(ADMIN_KEY, "", scope="admin"),
        key_row(OLD_KEY, "e1", expires_at=1.0),
    ),
)


def endpoint_row(
    *replicas: ReplicaRow,
    name: str = "tiny",
    endpoint_id: str = "e1",
    revision_id: str = "r1",
    task: Task = "generate",
    max_held: int = 10,
    hold_seconds: float = 30.0,
    cors_origins: tuple[str, ...] = (),
    **revision: Any,
) -> EndpointRow:
    row = RevisionRow(revision_id=revision_id, task=task, replicas=replicas, **revision)
    return EndpointRow(
        name=name,
        org_id="default",
        endpoint_id=endpoint_id,
        created=1_700_000_000,
        task=task,
        max_held=max_held,
        hold_seconds=hold_seconds,
        route=((revision_id, 100),),
        revisions=(row,),
        cors_origins=cors_origins,
    )


@dataclass
class World:
    folder: Path
    port: int
    router: Router
    table: RouteTable
    hold: Hold
    spool: Spool
    replica: FakeReplica
    connections: set[Any]
    changes: list[tuple[str, bool]]
    sequence: int = 0
    clients: list[Client] = field(default_factory=list)

    def row(self, **more: Any) -> ReplicaRow:
        return ReplicaRow(
            **{
                "replica_id": "p1",
                "address": self.replica.address,
                "slots": 4,
                "phases": (Phase(name="load", at=1.0, seconds=0.25),),
                **more,
            }
        )

    def show(self, *rows: EndpointRow, removed: tuple[str, ...] = ()) -> None:
        """The activator pushes these."""
        self.sequence += 1
        self.table.apply(
            Table(epoch=1, sequence=self.sequence, whole=self.sequence == 1, endpoints=rows, removed=removed)
        )

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def ask(self, **fields: Any) -> Reply:
        """One call on a connection of its own."""
        client = await self.client()
        client.post(**fields)
        return await client.answer()

    async def records(self) -> list[dict[str, Any]]:
        """All lines of the spool, once every request has ended. An end that no answer waits for is written later."""
        await until(lambda: not any(revision.demand for revision in self.table.revisions.values()))
        self.router.spool.flush()
        return [
            json.loads(line) for file in sorted(self.folder.glob("*.jsonl")) for line in file.read_text().splitlines()
        ]

    async def ends(self) -> list[dict[str, Any]]:
        records = await self.records()
        opened = [record["event_id"] for record in records if record["kind"] == "open"]
        ends = [record for record in records if record["kind"] == "end"]
        assert sorted(opened) == sorted(end["event_id"] for end in ends), "a record was not closed exactly once"
        return ends

    async def wait_held(self, count: int) -> None:
        await until(lambda: sum(endpoint.held for endpoint in self.table.endpoints.values()) == count)


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    raw_head: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


class Client:
    """Raw HTTP/1.1, so that nothing is hidden or mended on the way."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def post(self, **options: Any) -> None:
        self.send(request(**options))

    async def answer(self) -> Reply:
        async with asyncio.timeout(PATIENCE):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status, headers = parse_head(head)
            if headers.get("transfer-encoding") == "chunked":
                body = b"".join([piece async for piece in self.chunks()])
            elif "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            else:
                body = await self.reader.read()
            return Reply(status, headers, body, head)

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(PATIENCE):
            return parse_head(await self.reader.readuntil(b"\r\n\r\n"))

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
            assert data.endswith(b"\r\n")
            if size == 0:
                return
            yield data[:-2]

    async def closed(self) -> bytes:
        """What still comes until the server closes."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    def leave(self) -> None:
        self.writer.transport.abort()


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:] if line)}
    return int(lines[0].split(" ")[1]), headers


def request(
    *,
    url: str = "/e/tiny/v1/chat/completions",
    key: str | None = KEY,
    headers: tuple[str, ...] = (),
    body: bytes | None = None,
    version: str = "1.1",
    host: str = "x",
    **fields: Any,
) -> bytes:
    if body is None:
        needed = {"messages": [{"role": "user", "content": "hi"}]} if "chat" in url else {}
        body = json.dumps({**needed, **fields}).encode()
    lines = [f"POST {url} HTTP/{version}", f"host: {host}", f"content-length: {len(body)}", *headers]
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def until(true: Any, *, seconds: float = PATIENCE) -> None:
    """Let the loop run until something in it has happened."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def world(
    *,
    waiting_seconds: float = 5.0,
    show: bool = True,
    spool: Any = Spool,
    domain: str = "",
    cors_origins: tuple[str, ...] = (),
    trusted_proxies: tuple[str, ...] = (),
    reach: Reach = "public",
    reader: Reads | None = None,
    **limits: Any,
) -> AsyncIterator[World]:
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(prefix="pl") as name:
        folder = Path(name)
        changes: list[tuple[str, bool]] = []

        def changed(revision: Revision, urgent: bool) -> None:
            changes.append((revision.revision_id, urgent))

        lines = spool(folder, "w", loop=loop)
        keys = Keys(pepper=PEPPER, wall=time.time)
        keys.replace(POLICY)
        hold = Hold(clock=loop, max_bytes=limits.pop("max_held_bytes", 1 << 20), changed=changed, line_up=stand_in_line)
        table = RouteTable(clock=loop, hold=hold)
        router = Router(
            keys=keys,
            table=table,
            hold=hold,
            spool=lines,
            metrics=Metrics(),
            clock=loop,
            waiting_seconds=waiting_seconds,
            domain=domain,
            cors_origins=cors_origins,
            max_uploading=limits.pop("max_uploading", 8 << 20),
            max_unread=limits.pop("max_unread", 8 << 20),
            trusted_proxies=trusted_proxies,
            refusals_per_second=limits.pop("refusals_per_second", 0.0),
            reader=reader,
        )
        replica = await FakeReplica(f"unix:{folder}/r.sock").start()
        sizes = {"max_body": 1 << 20}
        times = {"header_seconds": 10.0, "keep_alive_seconds": 75.0, "upload_seconds": 120.0, "unread_seconds": 60.0}
        given: dict[str, Any] = {**sizes, **times, **limits}
        config = uvicorn.Config(
            asgi_app(router, admin=f"unix:{folder}/admin.sock", reach=reach),
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        config.load()
        state = ServerState()
        make = partial(RouterProtocol, config, state, {}, loop, router=router, limits=ClientLimits(**given))
        listener = socket.create_server(("127.0.0.1", 0))
        server = await loop.create_server(make, sock=listener)
        made = World(folder, listener.getsockname()[1], router, table, hold, lines, replica, state.connections, changes)
        if show:
            made.show(endpoint_row(made.row()))
        try:
            yield made
            for client in made.clients:
                client.writer.close()
            await replica.end()
        finally:
            for client in made.clients:
                client.writer.close()
            server.close()
            await replica.stop()
            lines.close()


async def get(
    w: World,
    path: str,
    *,
    key: str | None = KEY,
    method: str = "GET",
    client: Client | None = None,
    host: str = "x",
    headers: str = "",
) -> Reply:
    client = client or await w.client()
    auth = f"authorization: Bearer {key}\r\n" if key else ""
    client.send(f"{method} {path} HTTP/1.1\r\nhost: {host}\r\n{auth}{headers}content-length: 0\r\n\r\n".encode())
    return await client.answer()


def raw(w: World, *, buffer: int = 0, source: str = "127.0.0.1") -> socket.socket:
    """A client that does nothing by itself. `buffer`: bytes its kernel takes for it."""
    client = socket.socket()
    client.bind((source, 0))
    if buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.connect(("127.0.0.1", w.port))
    client.setblocking(False)
    return client


async def tell(client: socket.socket, data: bytes) -> None:
    """Send it, as far as the other side takes it."""
    try:
        async with asyncio.timeout(1.0):
            await asyncio.get_running_loop().sock_sendall(client, data)
    except (ConnectionError, TimeoutError):
        return  # it was refused amid: so much the better
