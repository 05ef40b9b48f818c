"""Several real router workers and one replica with few slots: slots follow demand, none starves, bounds are the machine's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from activator.wire import ReplicaRow
from router.ledger.wire import WorkerHello
from tests.fakes_gate import GatedReplica
from tests.integration.test_router_process import Site, site, stopped
from tests.unit.router_world import endpoint_row, until

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(90)]

BODY = {"messages": [{"role": "user", "content": "hi"}]}


@contextlib.asynccontextmanager
async def gated(
    workers: int, *, slots: int, seconds: float | None = None, max_held: int = 1000
) -> AsyncIterator[tuple[Site, GatedReplica]]:
    """A site with so many workers on one replica with so many slots."""
    async with site() as s:
        replica = await GatedReplica(f"unix:{s.paths.run}/g.sock", slots=slots, seconds=seconds).start()
        process = await s.start(PILOTLIGHT_ROUTER__WORKERS=str(workers))
        try:
            await s.ready(workers=workers)
            s.activator.push(endpoint_row(ReplicaRow(replica_id="g", address=replica.address, slots=slots), max_held=max_held))
            at = s.activator.sequence
            await s.activator.until(lambda: s.activator.acknowledging(at) == workers)
            yield s, replica
        finally:
            await stopped(process)
            await replica.stop()


@contextlib.contextmanager
def only_first_accepts(s: Site) -> Iterator[None]:
    """All connections that are made now go to the first worker."""
    others = pids(s)[1:]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def pids(s: Site) -> list[int]:
    return [frame.pid for frame in s.ledger.heard if isinstance(frame, WorkerHello)]


async def call(s: Site, *, key: str = "", name: str = "") -> int:
    """One call on a connection of its own."""
    async with s.http() as http:
        headers = {"authorization": f"Bearer {key or s.key}", "connection": "close"}
        return (await http.post("/e/tiny/v1/chat/completions", json=BODY, headers=headers, timeout=60)).status_code


@pytest.mark.parametrize("workers", [2, 4])
async def test_all_slots_serve_one_worker_when_all_connections_are_its(workers: int) -> None:
    async with gated(workers, slots=8) as (s, replica):
        with only_first_accepts(s):
            calls = [asyncio.ensure_future(call(s)) for _ in range(8)]
            await replica.until(lambda: len(replica.running) == 8, seconds=30)
        for run in list(replica.running.values()):
            run.set()
        assert await asyncio.gather(*calls) == [200] * 8


@pytest.mark.parametrize("workers", [2, 4])
async def test_with_fewer_slots_than_workers_none_starves(workers: int) -> None:
    async with gated(workers, slots=1, seconds=0.01) as (s, replica):
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(s.http()) for _ in range(40)]
            await asyncio.gather(*(client.get("/readyz") for client in clients))  # so that nobody's handshakes hold up the calls
            headers = {"authorization": f"Bearer {s.key}"}
            calls = [client.post("/e/tiny/v1/chat/completions", json=BODY, headers=headers, timeout=60) for client in clients]
            answers = [answer.status_code for answer in await asyncio.gather(*calls)]
        assert answers == [200] * 40
        assert replica.most_running == 1
        admitted = sorted(replica.order)  # request ids sort by when they were admitted
        overtaken = [index - admitted.index(request) for index, request in enumerate(replica.order)]
        assert max(overtaken) <= 4 * workers, overtaken


async def test_a_worker_killed_in_the_line_gives_its_place_back() -> None:
    async with gated(2, slots=1) as (s, replica):
        with only_first_accepts(s):
            running = asyncio.ensure_future(call(s))
            await replica.until(lambda: len(replica.running) == 1, seconds=20)
        first = pids(s)[0]
        os.kill(first, signal.SIGSTOP)
        waiting = asyncio.ensure_future(call(s))  # the other's
        await until(lambda: replica.gate._line._places, seconds=20)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            await running
        await replica.until(lambda: len(replica.order) == 2, seconds=20)
        replica.finish()
        assert await waiting == 200
