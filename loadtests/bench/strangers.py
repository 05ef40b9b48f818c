"""Every bad client at once, beside good ones: what the good ones notice, and what is left of the bad ones.

    python -m loadtests.bench strangers          (ten minutes of them; `tests/integration/test_strangers.py` has the short form)

One router worker over TLS, as in production but for the other processes, which are fakes in this one. Good callers keep their
connections; their time is what a call takes, first alone, then beside `bad_clients.py`. Descriptors and memory are the router's
own: at the start, at their highest, and once the bad clients are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from activator.wire import EndpointRow, ReplicaRow, RevisionRow
from loadtests.bench.bad_clients import BEFORE_TLS, BODY, INSIDE, Site
from loadtests.bench.relay import LAUNCH, listening, running
from loadtests.bench.targets import at_most
from loadtests.bench.traffic import Back
from pilotlight.keys import ensure_pepper, hash_key, mint
from pilotlight.ports import free_port
from pilotlight.settings import Paths
from router.ledger.wire import KeyRow, Policy
from tests.fakes import FakeActivator, FakeLedger

LONG_SECONDS, EACH = 600.0, 6
GOOD = 4  # callers
BETWEEN_SECONDS = 0.02  # a good caller's calls
GONE_SECONDS = 30.0  # the longest that anything of them may stay
MEMORY_FRACTION = 0.25  # that the router may have grown by, for what its allocator keeps


@dataclass
class Seen:
    """What a soak has found. Seconds, descriptors, bytes."""

    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # what good callers saw in place of 200
    descriptors: list[int] = field(default_factory=list)  # at the start, at the highest, at the end
    memory: list[int] = field(default_factory=list)

    def p99(self, times: list[float]) -> float:
        return statistics.quantiles(times, n=100)[98]


def endpoint(name: str, endpoint_id: str, *replicas: ReplicaRow) -> EndpointRow:
    revision = RevisionRow(revision_id=f"r-{name}", task="generate", replicas=replicas)
    return EndpointRow(
        name=name, org_id="o", endpoint_id=endpoint_id, created=1, task="generate", max_held=100, hold_seconds=60, route=((f"r-{name}", 100),),
        revisions=(revision,),
    )  # fmt: skip


@contextlib.asynccontextmanager
async def site(folder: Path, **settings: str) -> AsyncIterator[tuple[int, Site, str, Path]]:
    """A router's pid, how the good reach it, the bad ones' key, and its authority's certificate."""
    paths = Paths(folder / "state")
    paths.make()
    good, bad = mint(), mint()
    pepper = ensure_pepper(paths)
    rows = tuple(
        KeyRow(hash=hash_key(pepper, key).hex(), key_id=name, org_id="o", endpoint_id=endpoint_id, scope="inference")
        for key, name, endpoint_id in ((good, "good", "e-good"), (bad, "bad", "e"))
    )
    replicas = [ReplicaRow(replica_id=name, address=f"unix:{folder}/back.sock", slots=64) for name in ("p", "q")]
    activator = FakeActivator(paths.address("activator"), endpoint("tiny", "e", replicas[0]), endpoint("good", "e-good", replicas[1]))
    ledger = FakeLedger(paths.address("ledger"), Policy(version=1, keys=rows))
    activator.endpoints["cold"] = endpoint("cold", "e")
    back = await asyncio.get_running_loop().create_unix_server(Back, f"{folder}/back.sock")
    await activator.start()
    await ledger.start()
    port = free_port()
    environment = {"PILOTLIGHT_STATE_DIR": str(paths.state), "PILOTLIGHT_ROUTER__METRICS_PORT": str(free_port(8)), **settings}
    try:
        async with running([sys.executable, "-c", LAUNCH, str(port), "tls"], **environment) as process:
            await listening(port)
            await activator.until(lambda: activator.acknowledged > 0, seconds=20)
            yield process.pid, Site(port, good.encode(), ssl.create_default_context(cafile=str(paths.ca_cert))), bad, paths.ca_cert
    finally:
        back.close()
        await activator.stop()
        await ledger.stop()


async def good_caller(them: Site, times: list[float], seen: Seen) -> None:
    """One call after the other on a kept connection, until cancelled; as client programs do, anew where that was closed meanwhile."""
    asked = them.call(b"good", body=BODY)
    kept: Kept | None = None
    while True:
        begin = time.perf_counter()
        try:
            async with asyncio.timeout(30):
                kept, head = await ask_again(them, kept, asked)
                if not head.startswith(b"HTTP/1.1 200 "):
                    seen.refused.append(head[:200].decode(errors="replace"))
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as failure:
            seen.refused.append(f"{failure!r} after {time.perf_counter() - begin:.2f} s, {'kept' if kept else 'new'} connection")
            kept = None
        times.append(time.perf_counter() - begin)
        await asyncio.sleep(BETWEEN_SECONDS)


async def ask_again(them: Site, kept: Kept | None, asked: bytes) -> tuple[Kept, bytes]:
    """The connection, and the answer's head. A kept one that ends without a byte was idle too long for the router; a new one is asked."""
    if kept is not None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            return kept, await kept.ask(asked)
    reader, writer = await asyncio.open_connection("127.0.0.1", them.port, ssl=them.context, server_hostname="localhost")
    kept = Kept(reader, writer)
    return kept, await kept.ask(asked)


@dataclass
class Kept:
    """A good caller's connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, asked: bytes) -> bytes:
        """The head of the answer, once its body has come. Raises asyncio.IncompleteReadError where it ended before."""
        self.writer.write(asked)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await self.reader.readexactly(int(length.split(b":")[1]))
        return head


@contextlib.asynccontextmanager
async def good_callers(them: Site, times: list[float], seen: Seen) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(good_caller(them, times, seen)) for _ in range(GOOD)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def bad_clients(port: int, key: str, ca: Path, each: int) -> AsyncIterator[None]:
    arguments = ("-m", "loadtests.bench.bad_clients", str(port), key, str(ca), str(each))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL)
    assert process.stdin is not None and process.stdout is not None
    await process.stdout.readline()
    try:
        yield
    finally:
        process.stdin.close()
        await process.wait()


def measure_process(pid: int) -> tuple[int, int]:
    """Open descriptors, and private bytes in memory."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    private = sum(int(line.split()[1]) << 10 for line in rollup if line.startswith(("Private_Clean:", "Private_Dirty:")))
    return len(os.listdir(f"/proc/{pid}/fd")), private


async def soak(*, seconds: float, each: int, alone_seconds: float, **settings: str) -> Seen:
    """The good alone, and then so many seconds beside so many bad ones of each kind."""
    seen = Seen()
    with tempfile.TemporaryDirectory(prefix="pl", dir="/tmp") as name:
        async with site(Path(name), **settings) as (pid, them, bad, ca):
            async with bad_clients(them.port, bad, ca, each):  # what is made once is made before the start
                await asyncio.sleep(min(alone_seconds, 5.0))
            async with good_callers(them, seen.alone, seen):
                await asyncio.sleep(alone_seconds)
                first = await settled(pid, most=None)
            highest = first
            async with good_callers(them, seen.beside, seen), bad_clients(them.port, bad, ca, each):
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    await asyncio.sleep(0.5)
                    now = measure_process(pid)
                    highest = max(highest[0], now[0]), max(highest[1], now[1])
            last = await settled(pid, most=first[0])
            seen.descriptors, seen.memory = ([each[index] for each in (first, highest, last)] for index in (0, 1))
    return seen


async def settled(pid: int, *, most: int | None) -> tuple[int, int]:
    """Once no more descriptors are open than these, or none has been closed for a while; or the longest has passed."""
    before, end = measure_process(pid), time.monotonic() + GONE_SECONDS
    while time.monotonic() < end:
        await asyncio.sleep(2.0 if most is None else 0.2)
        now = measure_process(pid)
        if now[0] <= most if most is not None else now[0] >= before[0]:
            return now
        before = now
    return before


async def measure(seconds: float = LONG_SECONDS) -> dict[str, Any]:
    seen = await soak(seconds=seconds, each=EACH, alone_seconds=max(5.0, seconds / 10))
    ratio = seen.p99(seen.beside) / seen.p99(seen.alone)
    start, highest, end = seen.descriptors
    grown = seen.memory[2] / seen.memory[0] - 1
    return {
        "seconds": seconds,
        "bad_clients": EACH * (len(BEFORE_TLS) + len(INSIDE)),
        "good_calls_beside": len(seen.beside),
        "good_calls_not_answered": len(seen.refused),
        "good_p50_alone_ms": round(statistics.median(seen.alone) * 1e3, 2),
        "good_p50_beside_ms": round(statistics.median(seen.beside) * 1e3, 2),
        "good_p99_alone_ms": round(seen.p99(seen.alone) * 1e3, 2),
        "good_p99_beside_ms": round(seen.p99(seen.beside) * 1e3, 2),
        "descriptors_start_highest_end": f"{start}, {highest}, {end}",
        "private_mib_start_highest_end": ", ".join(f"{size / (1 << 20):.1f}" for size in seen.memory),
        "targets": [
            at_most("must", "p99 of good callers beside every bad client, to alone", ratio, 2.0, "×"),
            at_most("must", "descriptors left of the bad clients", end - start, 0, ""),
            at_most("must", "memory grown by them", grown * 100, MEMORY_FRACTION * 100, "%"),
        ],
    }
