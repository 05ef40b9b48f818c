"""Several real router workers and one replica with few slots: slots follow demand, none starves, bounds are the
machine's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from activator.wire import Demand, ReplicaRow
from pilotlight.exposition import Exposition
from router.ledger import metrics
from router.ledger.wire import WorkerHello
from tests.fakes_gate import GatedReplica
from tests.integration.router_site import Site, site, stopped
from tests.router_world import endpoint_row, until

APART_SECONDS = 0.3  # more than it takes to tell a gate how long somebody has waited
BODY = {"messages": [{"role": "user", "content": "hi"}]}


@contextlib.asynccontextmanager
async def gated(
    workers: int, *, slots: int, seconds: float | None = None, max_held: int = 1000, **gate: float
) -> AsyncIterator[tuple[Site, GatedReplica]]:
    """A site with so many workers on one replica with so many slots."""
    async with site() as s:
        replica = await GatedReplica(f"unix:{s.paths.run}/g.sock", slots=slots, seconds=seconds, **gate).start()
        # stopped workers are ours, and must not be found hung
        process = await s.start(PILOTLIGHT_ROUTER__WORKERS=str(workers), PILOTLIGHT_WATCH__SILENT_SECONDS="0")
        try:
            await s.ready(workers=workers)
            s.activator.push(
                endpoint_row(ReplicaRow(replica_id="g", address=replica.address, slots=slots), max_held=max_held)
            )
            at = s.activator.sequence
            await s.activator.until(lambda: s.activator.acknowledging(at) == workers)
            yield s, replica
        finally:
            await stopped(process)
            await replica.stop()


@contextlib.contextmanager
def only_one_accepts(s: Site, worker: int) -> Iterator[None]:
    """All connections that are made now go to this worker."""
    others = [pid for index, pid in enumerate(pids(s)) if index != worker]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def pids(s: Site) -> list[int]:
    return [frame.pid for frame in s.ledger.heard if isinstance(frame, WorkerHello)]


def told(s: Site) -> int:
    """Held and running requests, as the workers said last."""
    return sum(frame.requests.get("r1", 0) for frame in s.activator.latest.values() if isinstance(frame, Demand))


async def call(s: Site, *, trace: str = "") -> int:
    """One call on a connection of its own. `trace`: what the replica hears that it is called."""
    async with s.http() as http:
        headers = {"authorization": f"Bearer {s.key}", "connection": "close"} | (
            {"traceparent": trace} if trace else {}
        )
        return (await http.post("/e/tiny/v1/chat/completions", json=BODY, headers=headers, timeout=300)).status_code


@pytest.mark.parametrize("workers", [2, 4])
async def test_all_slots_serve_one_worker_when_all_connections_are_its(workers: int) -> None:
    async with gated(workers, slots=8) as (s, replica):
        with only_one_accepts(s, 0):
            calls = [asyncio.ensure_future(call(s)) for _ in range(8)]
            await replica.until(lambda: len(replica.running) == 8, seconds=30)
        for run in list(replica.running.values()):
            run.set()
        assert await asyncio.gather(*calls) == [200] * 8


@pytest.mark.parametrize("crowds", [(3, 2, 2), (2, 2, 1, 2, 2)], ids=["2 workers", "4 workers"])
async def test_with_fewer_slots_than_workers_who_has_waited_longest_is_next(crowds: tuple[int, ...]) -> None:
    """Crowds come one after the other, the last to the first worker again. While an answer is made all workers with
    somebody who waits get into the line, and a slot is kept for who has its turn however long that takes: so who is
    next is never a matter of luck.

    The first worker learns that others use its replica when its first answer is over: one of the second crowd goes
    before it, no more.
    """
    workers = len(crowds) - 1
    async with gated(workers, slots=1, promise_seconds=60.0) as (s, replica):
        calls: list[asyncio.Future[int]] = []
        for number, count in enumerate(crowds):
            with only_one_accepts(s, number % workers):
                calls += [asyncio.ensure_future(call(s, trace=str(number))) for _ in range(count)]
                await s.activator.until(lambda: told(s) == len(calls))  # noqa: B023
            await asyncio.sleep(APART_SECONDS)  # what is tested is who has waited longer
        order = [str(number) for number, count in enumerate(crowds) for _ in range(count)]
        order.insert(1, order.pop(crowds[0]))
        for served in range(1, len(order) + 1):
            await replica.until(lambda served=served: len(replica.traces) == served)  # type: ignore[misc]
            assert replica.traces == order[:served]
            waiting = {int(number) % workers for number in order[served:]} - ({0} if served == 1 else set())
            await replica.until(lambda waiting=waiting: len(replica.gate.line) == len(waiting))  # type: ignore[misc]
            replica.finish()
        assert await asyncio.gather(*calls) == [200] * len(order)
        assert replica.most_running == 1


async def test_a_worker_killed_in_the_line_gives_its_place_back() -> None:
    async with gated(2, slots=1) as (s, replica):
        with only_one_accepts(s, 0):
            running = asyncio.ensure_future(call(s))
            await replica.until(lambda: len(replica.running) == 1, seconds=20)
        first = pids(s)[0]
        os.kill(first, signal.SIGSTOP)
        waiting = asyncio.ensure_future(call(s))  # the other's
        await replica.until(lambda: len(replica.gate.line) == 1)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            await running
        await replica.until(lambda: len(replica.order) == 2, seconds=20)
        replica.finish()
        assert await waiting == 200


@pytest.mark.parametrize("workers", [2, 4])
async def test_the_most_that_may_be_held_is_the_machines(workers: int) -> None:
    async with gated(workers, slots=1, max_held=6) as (s, replica):
        running = asyncio.ensure_future(call(s))
        await replica.until(lambda: len(replica.running) == 1, seconds=20)
        calls = [asyncio.ensure_future(call(s)) for _ in range(20)]
        await until(lambda: sum(done.done() for done in calls) == 14, seconds=30)
        assert sorted(done.result() for done in calls if done.done()) == [503] * 14
        for number in range(1, 8):
            await replica.until(lambda number=number: len(replica.order) == number, seconds=20)  # type: ignore[misc]
            replica.finish()
        assert sorted(await asyncio.gather(running, *calls)) == [200] * 7 + [503] * 14


async def test_one_scrape_tells_of_the_worker_and_of_the_processes_beside_it() -> None:
    async with gated(2, slots=4, seconds=0.0) as (s, _):
        ledger = Exposition(
            lambda: metrics.collect(keys=3, workers=2, waiting=0, unpriced=0, settled=5, corrected=0, rejected=0)
        )
        await ledger.on_socket(s.paths.metrics("ledger"))
        assert [await call(s) for _ in range(6)] == [200] * 6
        async with httpx.AsyncClient() as http:
            told = [(await http.get(f"http://127.0.0.1:{s.metrics_port + index}/metrics")).text for index in (0, 1)]
        ledger.close()
    counted = [
        float(number)
        for said in told
        for number in re.findall(r'requests_total\{code="200",endpoint="tiny"\} (\S+)', said)
    ]
    assert sum(counted) == 6.0, "what workers count adds up"
    assert ["pilotlight_ledger_keys 3.0" in said for said in told] == [True, False], "told once"
