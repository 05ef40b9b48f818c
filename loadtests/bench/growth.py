"""What must not grow with the number of endpoints and keys, in CPU time of the process, which a busy machine does not
change.

    python -m loadtests.bench growth

Three sizes: 10, 1,000 and 10,000 endpoints, with ten times as many keys. The real tables, books and policies of router,
activator and ledger are filled and asked in this process. Frames are written and read as on the wire. Nothing else
runs.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from pydantic import TypeAdapter

from activator.catalogue import Catalogue, Endpoint, Revision
from activator.policy.estimates import StartEstimates
from activator.state.full_table import FullTable
from activator.state.table import TableBook
from activator.wire import FromActivator
from loadtests.bench.targets import at_most
from pilotlight.exposition import text
from pilotlight.frames import Frame
from router.admission.auth import Keys, keyed
from router.errors import RouterError
from router.hold.activator_link import DemandBook
from router.hold.hold import Hold
from router.hold.replicas import Revision as Routed
from router.hold.slot import Slot
from router.hold.table import RouteTable
from router.ledger.policy import LiveKeys, Policies
from router.ledger.server import PART_KEYS
from router.ledger.wire import FromLedger, KeyRow, PolicyChange, PolicyPart
from router.metrics import Metrics
from router.spool.record import Tokens
from router.worker import COLLECTED

SIZES = (10, 1_000, 10_000)
KEYS_EACH = 10
CALLS = 2_000
CHANGES = 50
PEPPER = b"growth" * 5
TABLES: TypeAdapter[Any] = TypeAdapter(FromActivator)
POLICIES: TypeAdapter[Any] = TypeAdapter(FromLedger)

ROWS = (
    ("one call's share of demand, keys and look-ups", "call_us", "µs"),
    ("the same while a hundredth of all endpoints is busy", "busy_call_us", "µs"),
    ("a key change, ledger", "key_change_ledger_ms", "ms"),
    ("a key change, each worker", "key_change_worker_ms", "ms"),
    ("all keys anew, each worker: longest turn", "policy_turn_ms", "ms"),
    ("all keys anew, each worker: in all", "policy_ms", "ms"),
    ("a router joins: activator", "join_activator_ms", "ms"),
    ("a router joins: longest turn of the router", "join_turn_ms", "ms"),
    ("a router joins: router, in all", "join_router_ms", "ms"),
    ("a scrape, every endpoint called once", "scrape_ms", "ms"),
)


def milliseconds(work: Callable[[], object]) -> float:
    """CPU time of this process."""
    begin = time.process_time()
    work()
    return (time.process_time() - begin) * 1000


class Waiter:
    """A call, as the hold sees it."""

    held_in: Routed | None = None
    held_bytes = 100
    user = "key k"
    sequences = 1

    def __init__(self, now: float) -> None:
        self.entered_at, self.deadline = now, now + 300.0

    def granted(self, slot: Slot) -> None:
        slot.release()

    def refused(self, error: RouterError) -> None:
        raise error


def endpoints(count: int) -> Catalogue:
    found = Catalogue()
    for number in range(count):
        revision = Revision(
            revision_id=f"rev_{number}", endpoint_id=f"ep_{number}", org_id="default", number=1, digest="sha256:0", task="generate",
            engine_args={}, min_replicas=0, max_replicas=1, idle_timeout_seconds=60.0, slots=64,
        )  # fmt: skip
        named, route = f"name-{number}", ((f"rev_{number}", 100),)
        endpoint = Endpoint(
            endpoint_id=f"ep_{number}", org_id="default", name=named, created=0, route=route, max_held=1000, hold_seconds=300.0,
            revisions=(revision,),
        )  # fmt: skip
        found.put(endpoint)
    return found


class Worker:
    """A router worker's tables. What it says goes into `said`, written as for the wire."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.keys = Keys(pepper=PEPPER, wall=time.time)
        self.said: list[int] = []
        self.demand = DemandBook(clock=loop)
        self.hold = Hold(clock=loop, max_bytes=1 << 30, changed=self.demand.changed)
        self.table = RouteTable(clock=loop, hold=self.hold)

    def begin(self) -> None:
        self.demand.begin(self._say, self.table)
        self.demand.partly = True

    def _say(self, frame: Frame) -> None:
        self.said.append(len(frame.model_dump_json()))

    def call(self, number: int, header: bytes) -> None:
        """A call for an endpoint at zero that is left again: demand goes up, and down."""
        tenant = self.keys.caller(header)
        endpoint = self.table.by_id[tenant.endpoint_id]
        revision = endpoint.routed(0.5)
        assert revision is not None
        waiter = Waiter(0.0)
        assert self.hold.ask(revision, waiter) is None
        self.hold.leave(waiter)


def key(number: int, count: int) -> tuple[KeyRow, bytes]:
    secret = f"pl_{number}".encode()
    hashed = keyed(PEPPER)(secret).hex()
    row = KeyRow(
        hash=hashed, key_id=f"key_{number}", org_id="default", endpoint_id=f"ep_{number % count}", scope="inference"
    )
    return row, b"Bearer " + secret


async def size(count: int) -> dict[str, float]:
    known, worker = endpoints(count), Worker()
    book = TableBook(1)
    table = FullTable(book, StartEstimates([]), lambda *_: _at_rest())
    found = {"join_activator_ms": milliseconds(lambda: table.parts(known, 1.0))}
    parts = table.parts(known, 1.0)
    turns = [milliseconds(lambda part=part: worker.table.apply(TABLES.validate_json(part.line))) for part in parts]  # type: ignore[misc]
    found |= {"join_turn_ms": max(turns), "join_router_ms": sum(turns)}
    found |= await keys(count, worker)
    found |= calls(count, worker)
    metrics = Metrics()
    metrics.known = worker.table.endpoints.__contains__
    for name in worker.table.endpoints:
        metrics.ended(
            name, status=200, start="warm", held=0.1, first_token=0.1, total=1.0, phases=(), tokens=Tokens(1, 0, 1)
        )
    found["scrape_ms"] = milliseconds(lambda: text(metrics.collect()))
    return found


def _at_rest() -> Any:
    raise AssertionError("every endpoint is at rest")


async def keys(count: int, worker: Worker) -> dict[str, float]:
    rows = {row.key_id: row for row, _ in (key(number, count) for number in range(count * KEYS_EACH))}

    async def load() -> LiveKeys:
        return LiveKeys(tuple(rows.values()))

    async def find(ids: Any) -> LiveKeys:
        return LiveKeys(tuple(rows[name] for name in ids if name in rows))

    with tempfile.TemporaryDirectory(prefix="pl") as folder:
        policies = Policies(file=Path(folder) / "policy.json", load=load, find=find)
        await policies._read(False)
        turns = []
        for first in range(0, len(rows), PART_KEYS):
            part = tuple(policies.keys.values())[first : first + PART_KEYS]
            last = first + PART_KEYS >= len(rows)
            line = PolicyPart(version=policies.version, first=first == 0, last=last, keys=part).model_dump_json()
            turns.append(milliseconds(lambda line=line: worker.keys.add(POLICIES.validate_json(line))))  # type: ignore[misc]
        ledger = workers = 0.0
        for number in range(CHANGES):
            row, _ = key(10_000_000 + number, count)
            rows[row.key_id] = row
            version = policies.version
            policies.invalidate(row.key_id)
            begin = time.process_time()
            await policies._read(False)
            lines = [change.model_dump_json() for change in policies.changes(version) or ()]
            ledger += (time.process_time() - begin) * 1000
            [line] = lines
            workers += milliseconds(lambda line=line: _change(worker, line))  # type: ignore[misc]
    return {
        "policy_turn_ms": max(turns),
        "policy_ms": sum(turns),
        "key_change_ledger_ms": ledger / CHANGES,
        "key_change_worker_ms": workers / CHANGES,
    }


def _change(worker: Worker, line: str) -> None:
    change = POLICIES.validate_json(line)
    assert isinstance(change, PolicyChange)
    assert worker.keys.change(change)


def calls(count: int, worker: Worker) -> dict[str, float]:
    headers = [key(number, count)[1] for number in range(count)]
    worker.begin()
    found = {}
    for name, busy in (("call_us", 0), ("busy_call_us", count // 100)):
        held = [Waiter(0.0) for _ in range(busy)]
        for number, waiter in enumerate(held):
            worker.hold.ask(worker.table.revisions[f"rev_{number}"], waiter)

        def all_of_them() -> None:
            for number in range(CALLS):
                worker.call(number, headers[count - 1 - number % (count - count // 100)])

        found[name] = milliseconds(all_of_them) * 1000 / CALLS
        for waiter in held:
            worker.hold.leave(waiter)
    worker.demand.end()
    return found


async def measure() -> dict[str, Any]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    gc.set_threshold(*COLLECTED)
    found: dict[int, dict[str, float]] = {}
    for count in SIZES:
        gc.collect()
        found[count] = await size(count)
    least, most = found[SIZES[0]], found[SIZES[-1]]
    rows = [["", *(f"{count:,} endpoints, {count * KEYS_EACH:,} keys" for count in SIZES)]]
    rows += [[what, *(f"{found[count][name]:.3f} {unit}" for count in SIZES)] for what, name, unit in ROWS]
    return {
        "notes": [" ".join(__doc__.split("\n\n")[0].split()) if __doc__ else ""],
        "tables": {"CPU time": rows},
        "targets": [
            at_most("must", "a call at 10,000 endpoints over one at 10", most["call_us"] - least["call_us"], 50, "µs"),
            at_most("must", "a key change, of the ledger's loop", most["key_change_ledger_ms"], 1, "ms"),
            at_most("must", "a key change, of a worker's loop", most["key_change_worker_ms"], 1, "ms"),
            at_most("must", "a scrape", most["scrape_ms"], 100, "ms"),
            at_most("must", "a router joining, of the activator", most["join_activator_ms"], 100, "ms"),
        ],
    }
