"""Fakes of what is around the activator: its effects, an agent on a real socket, Postgres; and rows to give it.

What they are told, they remember; the reconciler in simulated time is in `activator_world.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Protocol

import asyncpg
from pydantic import TypeAdapter

from activator.catalogue import Endpoint, Revision
from activator.policy.lifecycle import Replica
from activator.policy.quarantine import QuarantinedRung
from activator.store import housekeeping
from activator.store.events import EventRecord
from activator.store.statements import statements
from activator.wire import FromActivator
from pilotlight import frames
from pilotlight.frames import Encoded, Frame, FrameStream
from runtime.client import connect_agent
from runtime.wire import (
    ArgumentsChecked,
    CheckArguments,
    Drain,
    EngineEnvironment,
    NodeReport,
    Park,
    Phase,
    ReplicaReport,
    Shipped,
    Start,
    Stop,
    ToAgent,
    Unpark,
    UsageBatch,
)

ENVIRONMENT = EngineEnvironment(engine="vllm", version="0", device="cpu")
DIGEST = "sha256:" + "0" * 64


def revision(name: str = "a", number: int = 1, **given: Any) -> Revision:
    values: dict[str, Any] = {
        "digest": DIGEST,
        "task": "generate",
        "engine_args": {},
        "min_replicas": 0,
        "max_replicas": 1,
        "idle_timeout_seconds": 60.0,
        "slots": 4,
        "outcome": "proved",
    }
    return Revision(
        revision_id=f"rev_{name}{number}", endpoint_id=f"ep_{name}", org_id="default", number=number, **values | given
    )


def endpoint(name: str = "a", *revisions: Revision, removed: bool = False) -> Endpoint:
    """The whole route on the last of the revisions."""
    known = revisions or (revision(name),)
    route = () if removed else ((known[-1].revision_id, 100),)
    return Endpoint(
        endpoint_id=f"ep_{name}",
        org_id="default",
        name=name,
        created=0,
        route=route,
        max_held=10,
        hold_seconds=300.0,
        revisions=known,
        removed=removed,
    )


def report(replica_id: str, state: Any = "ready", *, revision_id: str = "rev_a1", **given: Any) -> ReplicaReport:
    address = f"unix:/r/{replica_id}" if state in ("ready", "draining") else ""
    return ReplicaReport(
        **{"replica_id": replica_id, "revision_id": revision_id, "state": state, "address": address, "slots": 4} | given
    )


class SimPeer(Protocol):
    def receive(self, frame: Frame) -> None: ...


_FROM_ACTIVATOR: TypeAdapter[Frame] = TypeAdapter(FromActivator)


class FakeEffects:
    """Hands frames to simulated peers, and remembers everything."""

    def __init__(self) -> None:
        self.peers: dict[int, SimPeer] = {}
        self.sent: list[Frame] = []
        self.rows: dict[str, list[str]] = {}  # replica → the states written
        self.cold_starts: list[tuple[str, str, float, str]] = []  # id, rung, seconds, why it failed
        self.usage: list[UsageBatch | Shipped] = []
        self.settled: list[tuple[str, str, str]] = []  # endpoint, revision, why it failed
        self.events: list[EventRecord] = []
        self.bad_rungs: dict[tuple[str, str, str], QuarantinedRung] = {}  # as Postgres has them
        self.hung_up: list[int] = []
        self.raised: list[int] = []

    def send(self, connection: int, *sent: Frame | Encoded) -> None:
        read = [_FROM_ACTIVATOR.validate_json(frame.line) if isinstance(frame, Encoded) else frame for frame in sent]
        self.sent.extend(read)
        for frame in read:
            if peer := self.peers.get(connection):
                peer.receive(frame)

    def hang_up(self, connection: int) -> None:
        self.hung_up.append(connection)
        self.peers.pop(connection, None)

    def save_replica(self, replica: Replica) -> None:
        states = self.rows.setdefault(replica.replica_id, [])
        if not states or states[-1] != replica.state:
            states.append(replica.state)

    def save_cold_start(self, replica: Replica, now: float) -> None:
        self.cold_starts.append(
            (replica.cold_start_id, replica.rung, round(now - replica.started_at, 3), replica.reason)
        )

    def save_event(self, event: EventRecord) -> None:
        self.events.append(event)

    def save_bad_rung(self, mark: QuarantinedRung) -> None:
        self.bad_rungs[mark.revision_id, mark.node_id, mark.step] = mark

    def settle(self, name: str, revision_id: str, failure: str) -> None:
        self.settled.append((name, revision_id, failure))

    def save_usage(self, connection: int, batch: UsageBatch | Shipped) -> None:
        self.usage.append(batch)

    def raise_epoch(self, above: int) -> None:
        self.raised.append(above)

    def of(self, kind: type[Any]) -> list[Any]:
        return [frame for frame in self.sent if isinstance(frame, kind)]


class FakeAgent:
    """An agent on a real socket: it makes replicas ready by itself, and says what it was told."""

    def __init__(self, *, ready_seconds: float | None = 0.01, node_id: str = "n1") -> None:
        self.node_id = node_id
        self.ready_seconds = ready_seconds  # None: replicas start for ever
        self.says_of_arguments: str | None = (
            None  # why the engine would not take them, "" where it would; None: there is no standby to ask
        )
        self.received: asyncio.Queue[tuple[float, Frame]] = asyncio.Queue()  # monotonic seconds, frame
        self.replicas: dict[str, ReplicaReport] = {}
        self.peers: list[FrameStream[Any]] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, address: str) -> None:
        self._server = await frames.serve(address, ToAgent, self._attend)

    async def close(self) -> None:
        if self._server:
            self._server.close()
        for peer in self.peers:
            peer.close()
        for task in self._tasks:
            task.cancel()

    def say(self, frame: Frame) -> None:
        if isinstance(frame, ReplicaReport):
            self.replicas[frame.replica_id] = frame
            if frame.state == "stopped":
                del self.replicas[frame.replica_id]
        for peer in self.peers:
            peer.send(frame)

    async def expect(self, kind: type[Any], seconds: float = 60.0) -> Any:
        """The next command of this kind, and nothing lost: others before it are an error, but for heartbeats."""
        async with asyncio.timeout(seconds):
            while True:
                _at, frame = await self.received.get()
                if isinstance(frame, kind):
                    return frame
                assert not isinstance(frame, Start | Drain | Stop | Park | Unpark), (
                    f"expected {kind.__name__}, got {frame}"
                )

    async def _attend(self, peer: FrameStream[Any]) -> None:
        peer.send(
            NodeReport(
                node_id=self.node_id,
                boot_id="b",
                environment=ENVIRONMENT,
                memory_bytes=64 << 30,
                standbys_ready=int(self.says_of_arguments is not None),
                replicas=tuple(self.replicas.values()),
            )
        )
        self.peers.append(peer)
        try:
            async for frame in peer:
                self.received.put_nowait((time.monotonic(), frame))
                self._obey(frame)
        finally:
            self.peers.remove(peer)

    def _obey(self, frame: Frame) -> None:
        if isinstance(frame, CheckArguments) and self.says_of_arguments is not None:
            self.say(ArgumentsChecked(check_id=frame.check_id, reason=self.says_of_arguments))
        elif isinstance(frame, Start):
            self.say(report(frame.replica_id, "starting", revision_id=frame.revision_id))
            if self.ready_seconds is not None:
                task = asyncio.ensure_future(self._make_ready(frame))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        elif isinstance(frame, Park | Unpark) and (known := self.replicas.get(frame.replica_id)):
            received = (
                {"state": "parked"}
                if isinstance(frame, Park)
                else {"state": "ready", "climb": frame.climb, "rung": "parked"}
            )
            self.say(known.model_copy(update=received))
        elif isinstance(frame, Drain | Stop) and (known := self.replicas.get(frame.replica_id)):
            self.say(known.model_copy(update={"state": "stopped"}))

    async def _make_ready(self, start: Start) -> None:
        begun = time.monotonic()
        await asyncio.sleep(self.ready_seconds or 0)
        phases = (Phase(name="load", at=begun, seconds=time.monotonic() - begun),)
        self.say(
            report(start.replica_id, "ready", revision_id=start.revision_id, phases=phases, pid=1, slots=start.slots)
        )


class FakePostgres:
    """A pool and its one connection. It can be away, and it can refuse."""

    def __init__(self) -> None:
        self.there = asyncio.Event()
        self.asked = asyncio.Event()
        self.done: list[tuple[str, tuple[Any, ...]]] = []
        self.refuses = ""  # a replica id, or a request id

    @asynccontextmanager
    async def acquire(self, timeout: float) -> AsyncIterator[FakePostgres]:
        self.asked.set()
        await self.there.wait()
        yield self

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield

    async def execute(self, statement: str, *values: Any) -> None:
        if self.refuses and (self.refuses in values or any(isinstance(v, list) and self.refuses in v for v in values)):
            raise asyncpg.DataError("no")
        names = {
            text: name for subject in ("replicas", "journal", "bad_rungs") for name, text in statements(subject).items()
        }
        self.done.append((names[statement], values))

    def rows(self) -> list[tuple[str, str]]:
        return [(values[0], values[4]) for name, values in self.done if name == "put_replica"]

    def usage(self) -> list[str]:
        return [request_id for name, values in self.done if name == "add_usage" for request_id in values[0]]


class FakePool:
    """Postgres away for each of `trouble`, then with so many old rows of each kind."""

    def __init__(self, failures: list[Exception], rows: int) -> None:
        self.failures, self.left = failures, dict.fromkeys(housekeeping.SQL.values(), rows)
        self.done = asyncio.Event()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[FakePool]:
        if self.failures:
            raise self.failures.pop(0)
        yield self
        self.done.set()

    async def fetchval(self, statement: str) -> int:
        assert statement == housekeeping.SIZE["bytes"]
        return 100

    async def execute(self, statement: str, days: float, batch: int) -> str:
        assert days == (730.0 if statement == housekeeping.SQL["audit"] else 30.0)
        deleted = min(batch, self.left[statement])
        self.left[statement] -= deleted
        return f"DELETE {deleted}"


class FakeLauncher:
    """Its agents live in the test's process. `running`: the one that lives, for all launchers of one place."""

    def __init__(self, address: str, running: list[FakeAgent]) -> None:
        self._address, self._running = address, running
        self._reached: FakeAgent | None = None

    async def reach(self) -> tuple[FrameStream[Any], NodeReport]:
        if not self._running:
            agent = FakeAgent(node_id=f"n{next(_NODES)}")
            await agent.serve(self._address)
            self._running.append(agent)
        self._reached = self._running[0]
        return await connect_agent(self._address)

    async def is_dead(self) -> bool:
        return self._reached not in self._running

    async def end(self) -> None:
        if self._running:
            await self._running.pop().close()


_NODES = count(1)
