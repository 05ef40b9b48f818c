"""Steps 2, 5, 6, 10 and 12: the connections to activator and ledger, which come and go while requests do not notice."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from activator.wire import Demand, Depths, Table
from router import reconnect
from router.admission.auth import Keys
from router.admission.ledger_link import LedgerLink
from router.hold import activator_link
from router.hold.activator_link import ActivatorLink, DemandBook
from router.hold.hold import Hold
from router.hold.replicas import Revision
from router.hold.table import RouteTable
from router.ledger.wire import Applied, Policy, Spooled, WorkerHello
from router.spool.spool import Spool
from tests.fakes import FakeActivator, FakeLedger
from tests.fakes_router import Caller, replica
from tests.router_world import KEY, PEPPER, POLICY, endpoint_row, until


class Side:
    """The router's side of both links."""

    def __init__(self, folder: Path) -> None:
        loop = asyncio.get_running_loop()
        self.folder = folder
        self.demand = DemandBook(clock=loop)
        self.hold = Hold(clock=loop, max_bytes=1 << 20, changed=self.demand.changed)
        self.table = RouteTable(clock=loop, hold=self.hold)
        self.link = ActivatorLink(address=f"unix:{folder}/a.sock", router_id="w", table=self.table, demand=self.demand)
        self.keys = Keys(pepper=PEPPER, wall=time.time)
        self.spool = Spool(folder, "w", loop=loop)
        hello = WorkerHello(worker_id="w", pid=1)
        self.ledger = LedgerLink(
            address=f"unix:{folder}/l.sock", file=folder / "policy.json", hello=hello, keys=self.keys, spool=self.spool
        )

    @property
    def revision(self) -> Revision:
        return self.table.revisions["r1"]

    def ask(self) -> Caller:
        caller = Caller(asyncio.get_running_loop())  # type: ignore[arg-type]
        slot = self.hold.ask(self.revision, caller)
        if slot is not None:
            caller.granted(slot)
        return caller


@pytest_asyncio.fixture
async def side(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Side]:
    monkeypatch.setattr(reconnect, "SHORTEST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(reconnect, "LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(Caller, "__init__", _made)
    with tempfile.TemporaryDirectory(prefix="pl") as name:
        made = Side(Path(name))
        tasks = [asyncio.create_task(made.link.run()), asyncio.create_task(made.ledger.run())]
        yield made
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        made.spool.close()


def _made(self: Caller, loop: asyncio.AbstractEventLoop) -> None:
    self.deadline, self.held_bytes = loop.time() + 30, 1
    self.held_in, self.user, self.sequences = None, "key k", 1
    self.slots, self.errors = [], []
    self.left = self.release_at_once = False


async def test_table_then_demand_then_acknowledgement(side: Side) -> None:
    activator = FakeActivator(f"unix:{side.folder}/a.sock", endpoint_row())
    await activator.start()
    await until(lambda: side.table.complete)
    await activator.until(lambda: activator.acknowledged == 1)
    began = time.monotonic()
    waiting = side.ask()
    await activator.until(lambda: activator.demand == {"r1": 1})
    assert time.monotonic() - began < activator_link.GATHER_SECONDS, "the first waiter's demand is told at once"
    activator.push(endpoint_row(replica()))
    await until(lambda: bool(waiting.slots))
    await activator.until(lambda: activator.acknowledged == 2)
    waiting.slots[0].release()
    await activator.until(lambda: activator.demand == {})
    await activator.stop()


async def test_demand_is_gathered(side: Side) -> None:
    activator = FakeActivator(f"unix:{side.folder}/a.sock", endpoint_row(replica(slots=1000), max_held=1000))
    await activator.start()
    await activator.until(lambda: activator.acknowledged == 1)
    before = len(activator.heard)
    for _ in range(500):
        side.ask().slots[0].release()
        side.ask()
    await activator.until(lambda: activator.demand == {"r1": 500})
    assert len(activator.heard) - before <= 4


async def test_a_heartbeat(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activator_link, "HEARTBEAT_SECONDS", 0.01)
    activator = FakeActivator(f"unix:{side.folder}/a.sock")
    await activator.start()
    await activator.until(lambda: len(activator.heard) > 5)
    sequences = [frame.sequence for frame in activator.heard if isinstance(frame, Demand)]
    assert sequences == sorted(set(sequences))


async def test_away_and_back(side: Side) -> None:
    """The last table serves on; what waits waits; whoever is back hears the whole demand."""
    activator = FakeActivator(f"unix:{side.folder}/a.sock", endpoint_row(replica(slots=1)))
    await activator.start()
    await until(lambda: side.table.complete)
    await activator.stop()
    await until(lambda: side.demand._send is None)
    running, waiting = side.ask(), side.ask()
    assert running.slots
    assert not waiting.slots
    second = FakeActivator(f"unix:{side.folder}/a.sock", endpoint_row(replica(slots=2)), epoch=2)
    await second.start()
    await until(lambda: bool(waiting.slots))
    await second.until(lambda: second.demand == {"r1": 2})
    await second.stop()


async def test_own_requests_go_up_and_others_come_down_and_end_with_who_told_them(side: Side) -> None:
    activator = FakeActivator(
        f"unix:{side.folder}/a.sock", endpoint_row(replica("p1", slots=9), replica("p2", slots=9))
    )
    await activator.start()
    await until(lambda: side.table.complete)
    first = side.ask().slots[0].replica.row.replica_id
    await activator.until(
        lambda: any(frame.in_flight == {first: 1} for frame in activator.heard if isinstance(frame, Demand))
    )
    activator.tell(Depths(others={"p1": 6, "nobody": 3}, routers=2))
    replicas = side.revision.replicas
    await until(lambda: replicas["p1"].others == 3.0)
    await activator.stop()
    await until(lambda: replicas["p1"].others == 0.0)


async def test_an_old_leader_changes_nothing(side: Side) -> None:
    new = FakeActivator(f"unix:{side.folder}/a.sock", endpoint_row(replica()), epoch=5)
    await new.start()
    await until(lambda: side.table.at == (5, 1))
    await new.stop()
    old = FakeActivator(f"unix:{side.folder}/a.sock", epoch=4)
    await old.start()
    await old.until(lambda: len(old.routers) >= 2)  # it is left, and tried again
    assert side.table.endpoints
    await old.stop()


async def test_an_old_frame_of_a_new_connection_ends_it(side: Side) -> None:
    activator = FakeActivator(f"unix:{side.folder}/a.sock", endpoint_row())
    await activator.start()
    await until(lambda: side.table.complete)
    activator.tell(Table(epoch=0, sequence=9, whole=False, removed=("tiny",)))
    await activator.until(lambda: len(activator.routers) == 2)
    assert "tiny" in side.table.endpoints
    await activator.stop()


async def test_the_policy_comes_and_changes(side: Side) -> None:
    ledger = FakeLedger(f"unix:{side.folder}/l.sock", POLICY)
    await ledger.start()
    await until(lambda: side.keys.known)
    side.keys.caller(b"Bearer " + KEY.encode())
    assert ledger.workers == ["w"]
    await ledger.until(lambda: Applied(version=POLICY.version) in ledger.heard)
    ledger.push(Policy(version=2, keys=()))
    await until(lambda: side.keys._tenants == {})
    await ledger.until(lambda: Applied(version=2) in ledger.heard)
    await ledger.stop()


async def test_the_kept_policy_serves_until_a_ledger_is_there(side: Side) -> None:
    (side.folder / "policy.json").write_text(POLICY.model_dump_json())
    side.ledger._restore()
    side.keys.caller(b"Bearer " + KEY.encode())
    for damaged in ("{", POLICY.model_dump_json().replace(POLICY.keys[0].hash, "x0")):
        (side.folder / "policy.json").write_text(damaged)
        side.ledger._restore()
        assert side.keys.known


async def test_the_ledger_hears_of_the_spool_also_after_it_was_away(side: Side) -> None:
    side.spool.open(b"1\n")
    ledger = FakeLedger(f"unix:{side.folder}/l.sock", POLICY)
    await ledger.start()
    await ledger.until(lambda: Spooled(file="w.0.jsonl", bytes=2) in ledger.heard)
    side.spool.open(b"2\n")
    await ledger.until(lambda: Spooled(file="w.0.jsonl", bytes=4) in ledger.heard)
    await ledger.stop()


async def test_a_silent_peer_is_left(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "SILENT_SECONDS", 0.02)
    ledger = FakeLedger(f"unix:{side.folder}/l.sock", POLICY)
    await ledger.start()
    await ledger.until(lambda: len(ledger.workers) >= 3)
    assert side.keys.known
    await ledger.stop()
