"""Every bad client at once, beside good ones: what the good ones notice, and what is left of the bad ones.

    python -m loadtests.bench strangers          (ten minutes of them; `tests/integration/test_strangers.py` has the
    short form)

One router worker over TLS, as in production but for the other processes, which are fakes. Good callers keep their
connections, and their calls are timed: alone, beside `bad_clients.py`, and, in turn, while the same bad clients strike
another router here. The last is the control. Bad clients, replicas and callers share these processors, which they do
nowhere else; no router can mend what good callers notice of that. Descriptors and memory are the router's own: at the
start, at their highest, and once the bad clients are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from activator.wire import EndpointRow, ReplicaRow, RevisionRow
from loadtests.bench.back import child, replica
from loadtests.bench.bad_clients import BEFORE_TLS, INSIDE, Site
from loadtests.bench.good_callers import good_callers
from loadtests.bench.relay import LAUNCH, listening, running
from loadtests.bench.targets import at_most
from loadtests.bench.traffic import cpu_seconds
from pilotlight.keys import ensure_pepper, hash_key, mint
from pilotlight.ports import free_port
from pilotlight.settings import Paths
from router.edge.freed import LOOK_SECONDS
from router.ledger.wire import KeyRow, Policy
from tests.fakes import FakeActivator, FakeLedger

LONG_SECONDS, EACH, ROUNDS = 600.0, 6, 4
ALONE, ELSEWHERE = 0.05, 0.15  # of the time beside bad clients
GONE_SECONDS = 30.0  # the longest that anything of them may stay
MEMORY_FRACTION = 0.25  # that the router may have grown by, for what its allocator keeps


@dataclass
class Share:
    """One part of a soak, all its rounds together. Seconds."""

    times: list[float] = field(default_factory=list)  # of good calls
    seconds: float = 0.0
    router: float = 0.0  # of processor time

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.times, n=100)[98]

    def row(self, name: str) -> list[str]:
        p50, p99 = statistics.median(self.times) * 1e3, self.p99 * 1e3
        return [
            name,
            str(len(self.times)),
            f"{p50:.2f} ms",
            f"{p99:.2f} ms",
            f"{100 * self.router / self.seconds:.0f} %",
        ]


@dataclass
class Seen:
    """What a soak has found. Seconds, descriptors, bytes."""

    alone: Share = field(default_factory=Share)
    elsewhere: Share = field(default_factory=Share)
    beside: Share = field(default_factory=Share)
    refused: list[str] = field(default_factory=list)  # what good callers saw in place of 200
    descriptors: list[int] = field(default_factory=list)  # at the start, at the highest, at the end
    memory: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Struck:
    """A router, and what its callers have."""

    pid: int
    them: Site  # the good ones
    bad: str  # the bad ones' key
    ca: Path

    def bad_clients(self, each: int) -> contextlib.AbstractAsyncContextManager[int]:
        return child("loadtests.bench.bad_clients", str(self.them.port), self.bad, str(self.ca), str(each), quiet=True)


def endpoint(name: str, endpoint_id: str, *replicas: ReplicaRow) -> EndpointRow:
    revision = RevisionRow(revision_id=f"r-{name}", task="generate", replicas=replicas)
    return EndpointRow(
        name=name, org_id="o", endpoint_id=endpoint_id, created=1, task="generate", max_held=100, hold_seconds=60, route=((f"r-{name}", 100),),
        revisions=(revision,),
    )  # fmt: skip


@contextlib.asynccontextmanager
async def struck(folder: Path, back: Path, **settings: str) -> AsyncIterator[Struck]:
    """A router whose replicas are behind the socket `back`."""
    paths = Paths(folder)
    paths.make()
    good, bad = mint(), mint()
    pepper = ensure_pepper(paths)
    rows = tuple(
        KeyRow(hash=hash_key(pepper, key).hex(), key_id=name, org_id="o", endpoint_id=endpoint_id, scope="inference")
        for key, name, endpoint_id in ((good, "good", "e-good"), (bad, "bad", "e"))
    )
    replicas = [ReplicaRow(replica_id=name, address=f"unix:{back}", slots=64) for name in ("p", "q")]
    activator = FakeActivator(
        paths.address("activator"), endpoint("tiny", "e", replicas[0]), endpoint("good", "e-good", replicas[1])
    )
    ledger = FakeLedger(paths.address("ledger"), Policy(version=1, keys=rows))
    activator.endpoints["cold"] = endpoint("cold", "e")
    await activator.start()
    await ledger.start()
    port = free_port()
    environment = {
        "PILOTLIGHT_STATE_DIR": str(paths.state),
        "PILOTLIGHT_ROUTER__METRICS_PORT": str(free_port(8)),
        **settings,
    }
    try:
        async with running([sys.executable, "-c", LAUNCH, str(port), "tls"], **environment) as process:
            await listening(port)
            await activator.until(lambda: activator.acknowledged > 0, seconds=20)
            context = ssl.create_default_context(cafile=str(paths.ca_cert))
            yield Struck(process.pid, Site(port, good.encode(), context), bad, paths.ca_cert)
    finally:
        await activator.stop()
        await ledger.stop()


def measure_process(pid: int) -> tuple[int, int]:
    """Open descriptors, and private bytes in memory. Unix sockets are not counted: so many idle connections to replicas
    are kept on purpose.
    """
    local = {line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
    opened = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            socket = re.fullmatch(r"socket:\[(\d+)\]", str(Path(f"/proc/{pid}/fd/{name}").readlink()))
            opened += socket is None or socket[1] not in local
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    private = sum(
        int(line.split()[1]) << 10 for line in rollup if line.startswith(("Private_Clean:", "Private_Dirty:"))
    )
    return opened, private


class Soak:
    """`other`: the control's router, None for none."""

    def __init__(self, router: Struck, other: Struck | None, each: int) -> None:
        self.router = router
        self._other = other
        self._each = each
        self.seen = Seen()
        self._highest = (0, 0)

    async def run(self, *, seconds: float, rounds: int) -> None:
        seen, router = self.seen, self.router
        async with router.bad_clients(self._each):  # what is made once is made before the start
            await asyncio.sleep(min(seconds / 3, 5.0))
        async with good_callers(router.them, [], seen.refused):
            first = self._highest = await settled(router.pid, most=None)
        for _ in range(rounds):
            if self._other is not None:
                await self._share(seen.alone, seconds * ALONE / rounds)
                async with self._other.bad_clients(self._each):
                    await self._share(seen.elsewhere, seconds * ELSEWHERE / rounds)
            async with router.bad_clients(self._each):
                await self._share(seen.beside, seconds / rounds)
        await settled(router.pid, most=first[0])
        await asyncio.sleep(3 * LOOK_SECONDS)  # it is given back a moment after they have gone
        last = measure_process(router.pid)
        seen.descriptors, seen.memory = ([found[index] for found in (first, self._highest, last)] for index in (0, 1))

    async def _share(self, share: Share, seconds: float) -> None:
        """Good callers call for so long."""
        begun, busy = time.monotonic(), cpu_seconds(self.router.pid)
        async with good_callers(self.router.them, share.times, self.seen.refused):
            while time.monotonic() < begun + seconds:
                await asyncio.sleep(0.5)
                now = measure_process(self.router.pid)
                self._highest = max(self._highest[0], now[0]), max(self._highest[1], now[1])
        share.seconds += time.monotonic() - begun
        share.router += cpu_seconds(self.router.pid) - busy


async def soak(
    *, seconds: float, each: int, rounds: int = 1, control: bool = True, settings: Mapping[str, str] | None = None
) -> Seen:
    """So many seconds beside so many bad clients of each kind, in so many parts. `control`: beside nobody, and beside
    another router's, too.
    """
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pl", dir="/tmp")))
        back, given = folder / "back.sock", settings or {}
        await stack.enter_async_context(replica(back))
        other = await stack.enter_async_context(struck(folder / "c", back, **given)) if control else None
        router = await stack.enter_async_context(struck(folder / "s", back, **given))
        found = Soak(router, other, each)
        await found.run(seconds=seconds, rounds=rounds)
        return found.seen


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
    seen = await soak(seconds=seconds, each=EACH, rounds=ROUNDS)
    start, highest, end = seen.descriptors
    grown = seen.memory[2] / seen.memory[0] - 1
    return {
        "seconds": seconds,
        "bad_clients": EACH * (len(BEFORE_TLS) + len(INSIDE)),
        "good_calls_beside": len(seen.beside.times),
        "good_calls_not_answered": len(seen.refused),
        "descriptors_start_highest_end": f"{start}, {highest}, {end}",
        "private_mib_start_highest_end": ", ".join(f"{size / (1 << 20):.1f}" for size in seen.memory),
        "tables": {
            "Good callers": [
                ["the bad clients strike", "good calls", "p50", "p99", "the router's share of a core"],
                seen.alone.row("nobody"),
                seen.elsewhere.row("another router of this machine"),
                seen.beside.row("the good callers' router"),
            ]
        },
        "targets": [
            at_most(
                "must",
                "p99 of good callers beside every bad client, to alone",
                seen.beside.p99 / seen.alone.p99,
                2.0,
                "×",
            ),
            at_most(
                "goal",
                "the same, to while they strike another router here",
                seen.beside.p99 / seen.elsewhere.p99,
                2.0,
                "×",
            ),
            at_most("must", "descriptors left of the bad clients", end - start, 0, ""),
            at_most("must", "memory grown by them", grown * 100, MEMORY_FRACTION * 100, "%"),
        ],
    }
