"""What it costs to settle one request's record: CPU time of the ledger's process and of Postgres, each for itself.

It is a real ledger with the embedded Postgres, fed by a worker's spool at RATE requests a second, as one router worker
reaches. Slower, it would settle smaller batches; all at once, larger ones than it ever does. Then BURST requests at
once, for the rate it can keep up with.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from loadtests.bench.traffic import cpu_seconds
from pilotlight.database import embedded
from pilotlight.database.migrate import migrate
from pilotlight.sealed import seal
from pilotlight.settings import Paths
from router.admission.request import new_event_id
from router.spool.record import EndRecord, OpenRecord

RATE = 10_000  # requests a second
REQUESTS = 20_000
ROUNDS = 3
BATCH_SECONDS = 0.01
DEADLINE_SECONDS = 120.0


async def measure() -> dict[str, float]:
    """Medians: µs of CPU a record, the ledger's and Postgres', and records a second in a burst."""
    async with _settling() as bench:
        await bench.settle(200, pause=0.0)  # warm up: prices, connections, prepared statements
        paced = [await bench.settle(REQUESTS, pause=BATCH_SECONDS) for _ in range(ROUNDS)]
        bursts = [await bench.settle(REQUESTS, pause=0.0) for _ in range(ROUNDS)]
    return {
        "settler_cpu_us": round(statistics.median(run.ledger for run in paced), 1),
        "postgres_cpu_us": round(statistics.median(run.postgres for run in paced), 1),
        "settled_per_second": round(statistics.median(run.per_second for run in bursts)),
    }


@dataclass(frozen=True)
class Settled:
    """µs of CPU a record, and records a second."""

    ledger: float
    postgres: float
    per_second: float


class Settling:
    """A ledger, its Postgres, and the spool of a worker that we play."""

    def __init__(self, spool: Path, ledger: int, postgres: int, connection: asyncpg.Connection) -> None:
        self._ledger = ledger
        self._postgres = postgres
        self._connection = connection
        self._file = (spool / f"{uuid.uuid4().hex}.0.jsonl").open("ab", buffering=0)
        # a worker lives as long as it holds this; a dead one's file is read once and deleted
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._expected = 0

    async def settle(self, count: int, *, pause: float) -> Settled:
        """Write `count` whole requests, RATE a second with a `pause`, else at once, and wait until all are rows."""
        lines = [_lines() for _ in range(count)]
        step = max(int(RATE * pause), 1) if pause else count
        self._expected += count
        ledger, postgres, began = cpu_seconds(self._ledger), _family_seconds(self._postgres), time.perf_counter()
        for at in range(0, count, step):
            self._file.write(b"".join(lines[at : at + step]))
            await asyncio.sleep(max(began + (at + step) / RATE - time.perf_counter(), 0.0) if pause else 0.0)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while await self._connection.fetchval("SELECT count(*) FROM usage") < self._expected:
                await asyncio.sleep(0.05)
        took = time.perf_counter() - began
        return Settled(
            ledger=(cpu_seconds(self._ledger) - ledger) / count * 1e6,
            postgres=(_family_seconds(self._postgres) - postgres) / count * 1e6,
            per_second=count / took,
        )

    def close(self) -> None:
        self._file.close()


@asynccontextmanager
async def _settling() -> AsyncIterator[Settling]:
    state = Path(tempfile.mkdtemp(prefix="pls-", dir="/tmp"))
    state.chmod(0o711)  # Postgres runs as another user
    paths = Paths(state)
    postgres = await embedded.start(paths)
    try:
        await migrate(postgres.dsn)
        connection = await asyncpg.connect(postgres.dsn)
        await connection.execute(
            "INSERT INTO endpoints (endpoint_id, org_id, name) VALUES ('bench', 'default', 'bench')"
        )
        environ = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"} | {
            "PILOTLIGHT_STATE_DIR": str(state)
        }
        ledger = subprocess.Popen([sys.executable, "-m", "router.ledger"], env=environ, stdout=subprocess.DEVNULL)  # noqa: ASYNC220
        try:
            bench = Settling(paths.spool, ledger.pid, postgres.pid, connection)
            yield bench
            bench.close()
        finally:
            ledger.terminate()
            await asyncio.to_thread(ledger.wait)
            await connection.close()
    finally:
        await postgres.stop()
        shutil.rmtree(state, ignore_errors=True)


def _lines() -> bytes:
    """What a worker leaves of one JSON request."""
    event_id = new_event_id()
    opened = OpenRecord(
        event_id=event_id,
        org_id="default",
        endpoint_id="bench",
        key_id=event_id[:16],
        path="/v1/chat/completions",
        streamed=False,
        admitted_at=time.time(),
    )
    ended = EndRecord(
        event_id=event_id,
        revision_id=event_id[:16],
        replica_id=event_id[:16],
        status=200,
        finish="complete",
        first_byte_ms=12.345,
        total_ms=12.456,
        input_tokens=900,
        output_tokens=160,
        count_source="engine",
    )
    return seal(opened.model_dump_json().encode()) + seal(ended.model_dump_json().encode())


def _family_seconds(pid: int) -> float:
    """CPU seconds of a process and all below it, those that have ended included."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return cpu_seconds(pid, ended_children=True) + sum(_family_seconds(int(child)) for child in children)
