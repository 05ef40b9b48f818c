"""The whole way of a bill as a state machine: whatever dies, in whatever order, each request has one row, and with its
corrections the row says what an oracle beside it counted.

Real here: spool files with their locks, tail, join, follower, rows and prices; counts, journals, shipping and word of a
node. Played: the router's workers, the replicas, the activator's queue, Postgres, and time.
"""

from __future__ import annotations

import asyncio
import fcntl
import io
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pilotlight.sealed import seal
from router.finish import Finish
from router.ledger.follow import Follower
from router.ledger.join import Join, PendingUsage
from router.ledger.late import Late, correction
from router.ledger.prices import Price, PriceList
from router.ledger.row import UsageRow, usage_row
from router.ledger.tail import Tail
from router.ledger.watermark import Unfinished
from router.ledger.watermark import Word as LedgerWord
from router.ledger.worker_locks import Workers
from router.spool.record import EndRecord, OpenRecord, ToldBy
from runtime.journal_line import encode
from runtime.node.last_counts import Counts
from runtime.node.usage_shipper import UsageShipper
from runtime.node.watermark import BEATS, Watermark
from runtime.wire import RequestCount, Shipped, UsageBatch, UsageEntry

PRICE = Price(version=1, org_id="default", endpoint_id="", valid_from=0.0, input=10**9, cached=0, output=10**9)
INPUT = 10  # tokens of every prompt


@dataclass
class Request:
    event_id: str
    streamed: bool
    worker: int
    replica: str
    made: int = 0
    beat: int | None = None  # what the agent heard last
    kept: int | None = None  # what it has on disk
    at: str = "running"  # at its replica: running, left (the abort is on its way), over
    known: bool = True  # its router lives and has not ended it
    oracle: int = 0  # what the row and its corrections must come to
    source: set[str] = field(default_factory=set)


class Worker:
    """A router worker: a lock on the newest of its files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name, self.number = folder, name, 0
        self.file = self._begin()

    def _begin(self) -> io.FileIO:
        file = io.FileIO(self.folder / f"{self.name}.{self.number}.jsonl", "ab")
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def write(self, record: OpenRecord | EndRecord) -> None:
        self.file.write(seal(record.model_dump_json().encode()))

    def rotate(self) -> None:
        before, self.number = self.file, self.number + 1
        self.file = self._begin()
        before.close()


class Bill(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="bill-"))
        self.spool, self.journals = self.home / "spool", self.home / "journal"
        self.spool.mkdir()
        self.journals.mkdir()
        self.requests: dict[str, Request] = {}
        self.workers: list[Worker | None] = []
        self.replicas: set[str] = set()
        self.ever: set[str] = set()
        self.rows: dict[str, UsageRow] = {}
        self.corrections: dict[str, tuple[str, int, int, int]] = {}  # by id: of which request, input, output, cost
        self.journal: dict[tuple[str, str, bool], UsageEntry] = {}
        self.whole: set[str] = set()
        self.queue: list[
            tuple[int, UsageBatch | Shipped]
        ] = []  # the activator's, in front of Postgres: of which agent, what
        self.agents = 0
        self.linked, self.postgres, self.now = True, True, 0.0
        self.said: Shipped | None = None
        self.prices = PriceList([PRICE])

    @initialize()
    def begin(self) -> None:
        self.new_agent()
        self.new_ledger()
        for _ in range(2):
            self.new_worker()
            self.new_replica()
        for number in range(6):
            self.open(number % 2, f"r{number // 3}", streamed=number % 3 > 0)
        self.some_are_made()
        self.beats(durable=True)
        self.some_are_made()

    def some_are_made(self) -> None:
        for number, request in enumerate(self.requests.values()):
            request.made += number + 1

    # The router's workers

    @rule()
    def new_worker(self) -> None:
        self.workers.append(Worker(self.spool, f"w{len(self.workers)}"))

    def living(self) -> list[int]:
        return [number for number, worker in enumerate(self.workers) if worker is not None]

    @precondition(lambda self: self.replicas and self.living())
    @rule(data=st.data(), streamed=st.booleans())
    def opens(self, data: st.DataObject, streamed: bool) -> None:
        number = data.draw(st.sampled_from(self.living()))
        replica = data.draw(st.sampled_from(sorted(self.replicas)))
        self.open(number, replica, streamed=streamed)

    def open(self, number: int, replica: str, *, streamed: bool) -> None:
        event_id = f"{len(self.requests):032x}"
        self.worker(number).write(
            OpenRecord(
                event_id=event_id,
                org_id="default",
                endpoint_id="ep",
                key_id="k",
                path="/",
                streamed=streamed,
                admitted_at=1e9,
            )
        )
        self.requests[event_id] = Request(event_id, streamed, number, replica)

    def worker(self, number: int) -> Worker:
        worker = self.workers[number]
        assert worker is not None
        return worker

    @precondition(lambda self: self.living())
    @rule(data=st.data())
    def rotates(self, data: st.DataObject) -> None:
        self.worker(data.draw(st.sampled_from(self.living()))).rotate()

    @precondition(lambda self: self.living())
    @rule(data=st.data())
    def router_dies(self, data: st.DataObject) -> None:
        """kill -9: what it had open is left, at its replica too."""
        number = data.draw(st.sampled_from(self.living()))
        self.worker(number).file.close()
        self.workers[number] = None
        for request in self.requests.values():
            if request.worker == number and request.known:
                request.known = False
                if request.at == "running":
                    request.at = "left"

    # Requests

    def running(self) -> list[str]:
        return [name for name, request in self.requests.items() if request.at == "running"]

    @precondition(lambda self: self.running())
    @rule(data=st.data(), tokens=st.integers(1, 5))
    def makes(self, data: st.DataObject, tokens: int) -> None:
        self.requests[data.draw(st.sampled_from(self.running()))].made += tokens

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def completes(self, data: st.DataObject) -> None:
        request = self.requests[data.draw(st.sampled_from(self.running()))]
        self.writes_down(request)
        self.ends(request, "complete", "engine", request.made)
        request.source = {"engine"}

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def client_leaves(self, data: st.DataObject) -> None:
        request = self.requests[data.draw(st.sampled_from(self.running()))]
        request.at = "left"
        self.ends(
            request,
            "client_disconnect",
            "relayed" if request.streamed else "none",
            request.made if request.streamed else 0,
        )

    def ends(self, request: Request, finish: Finish, source: ToldBy, output: int) -> None:
        told = source == "engine"
        record = EndRecord(
            event_id=request.event_id,
            replica_id=request.replica,
            status=200,
            finish=finish,
            input_tokens=INPUT if told else 0,
            output_tokens=output,
            count_source=source,
        )
        request.known = False
        self.worker(request.worker).write(record)

    def writes_down(self, request: Request) -> None:
        """The engine is done with it, and its replica has a line of it."""
        entry = UsageEntry(
            request_id=request.event_id,
            replica_id=request.replica,
            input_tokens=INPUT,
            cached_tokens=0,
            output_tokens=request.made,
            finish="stop",
        )
        with (self.journals / f"{request.replica}.jsonl").open("ab") as file:
            file.write(encode(entry))
        request.at, request.oracle, request.source = "over", request.made, {"journal"}

    @rule()
    def aborts_arrive(self) -> None:
        for request in self.requests.values():
            if request.at == "left":
                self.writes_down(request)

    # The node

    def new_agent(self) -> None:
        self.agents += 1
        self.counts = Counts(self.journals)
        self.shipping = UsageShipper(self.journals, self.takes)
        self.word = Watermark(shipper=self.shipping, counts=self.counts, living=lambda: self.replicas)
        if self.linked:
            self.shipping.again()

    def takes(self, batch: UsageBatch) -> bool:
        if self.linked:
            self.queue.append((self.agents, batch))
        return self.linked

    @precondition(lambda self: len(self.replicas) < 3)
    @rule()
    def new_replica(self) -> None:
        replica = f"r{len(self.ever)}"
        self.ever.add(replica)
        self.replicas.add(replica)
        (self.journals / f"{replica}.jsonl").touch()
        self.shipping.opened(replica)

    @rule(durable=st.booleans())
    def beats(self, durable: bool) -> None:
        self.now += 1.0
        for replica in sorted(self.replicas):
            at_it = [request for request in self.requests.values() if request.replica == replica]
            told = [request for request in at_it if request.at in ("running", "left")]
            for request in at_it:
                request.beat = request.made if request in told else None
            counts = [
                RequestCount(request_id=r.event_id, input_tokens=INPUT, cached_tokens=0, output_tokens=r.made)
                for r in told
            ]
            self.word.heard(replica, counts, turned=True, now=self.now)
        if durable:
            self.counts.persist(self.counts.snapshot(), self.shipping.journals())
            for request in self.requests.values():
                request.kept = request.beat

    def lost_at(self, replicas: Iterable[str], *, kept: bool) -> None:
        """These replicas are gone: what was in work there is billed to its last count, or to what its router saw of
        it.
        """
        for request in self.requests.values():
            if request.replica not in replicas or request.at not in ("running", "left"):
                continue
            delivered = request.made if request.streamed and request.known else None
            count = request.kept if kept else request.beat
            if request.known:
                self.ends(request, "upstream_error", "relayed" if request.streamed else "none", delivered or 0)
            request.at = "over"
            request.oracle = count if count is not None else -1
            request.source = {"last_count"} if count is not None else {"relayed", "none"}

    @precondition(lambda self: self.replicas)
    @rule(data=st.data(), torn=st.binary(max_size=10))
    def replica_dies(self, data: st.DataObject, torn: bytes) -> None:
        replica = data.draw(st.sampled_from(sorted(self.replicas)))
        with (self.journals / f"{replica}.jsonl").open("ab") as file:
            file.write(torn.replace(b"\n", b""))
        self.replicas.discard(replica)
        self.lost_at({replica}, kept=False)
        self.word.gone(replica)

    @rule()
    def agent_dies(self) -> None:
        """kill -9: its replicas end with it, and its word with them."""
        lost, self.replicas = self.replicas, set()
        self.lost_at(lost, kept=True)
        self.new_agent()

    @rule(linked=st.booleans())
    def link(self, linked: bool) -> None:
        if not linked:
            self.queue.clear()  # the activator died: what was not in Postgres is asked for again
        self.linked = linked
        if linked:
            self.shipping.again()

    @rule(up=st.booleans())
    def postgres_is(self, up: bool) -> None:
        self.postgres = up

    @rule(most=st.integers(1, 5))
    def stores(self, most: int) -> None:
        self.shipping.sweep()
        for agent, batch in self.queue[:most] if self.postgres else ():
            self.store(agent, batch)
        del self.queue[: most if self.postgres else 0]

    def store(self, agent: int, batch: UsageBatch | Shipped) -> None:
        if isinstance(batch, Shipped):
            self.said = batch
            return
        for entry in batch.entries:
            self.journal.setdefault((entry.request_id, entry.replica_id, entry.partial), entry)
        self.whole.update(batch.complete)
        if agent == self.agents:  # the link of one that died is gone
            self.shipping.stored(batch.batch)

    # The ledger

    @rule()
    def new_ledger(self) -> None:
        """kill -9, at whatever point."""
        self.tail, self.join = Tail(self.spool), Join()
        workers = Workers(locked=self.tail.is_locked, keeps_locks=lambda worker: True)
        self.follower = Follower(tail=self.tail, join=self.join, workers=workers, settle=lambda: None)

    @rule()
    def reads(self) -> None:
        self.follower.scan()
        asyncio.run(self.follower.read())

    def look_up(self) -> None:
        waiting = set(self.join.waiting)
        self.join.journal([entry for entry in self.journal.values() if entry.request_id in waiting])

    @precondition(lambda self: self.postgres)
    @rule()
    def looks_up(self) -> None:
        self.look_up()

    @precondition(lambda self: self.postgres and self.linked)
    @rule(beats=st.integers(0, BEATS))
    def asks(self, beats: int) -> None:
        """Word comes when every replica has beaten twice; the ledger concludes from it, or hears nothing."""
        asked = self.join.waiting
        self.said = None
        self.word.ask(1, lambda said: self.queue.append((self.agents, said)), now=self.now)
        for _ in range(beats):
            self.beats(durable=True)
        self.stores(most=10**6)
        if self.said is None:
            self.now += 100.0  # the agent gives up on those that have not beaten
            self.word.look(now=self.now)
            self.stores(most=10**6)
        said: Shipped | None = self.said
        assert said is not None
        self.look_up()
        unfinished = [Unfinished(replica, "ep") for replica in self.ever - self.whole]
        self.join.concluded(LedgerWord.of(said.replicas, said.in_work, unfinished), asked=asked)

    @rule()
    def last_resort(self) -> None:
        self.join.expire(asked=self.join.waiting, before=1e12)

    @precondition(lambda self: self.postgres)
    @rule()
    def hurries(self) -> None:
        """All that has an end is settled by what is known now: what comes later must correct it."""
        self.reads()
        self.last_resort()
        self.settles(most=10**6, known=True)

    @precondition(lambda self: self.postgres)
    @rule(most=st.integers(1, 20), known=st.booleans())
    def settles(self, most: int, known: bool) -> None:
        """`known` false: Postgres has them, and the ledger does not hear of it."""
        cases = self.join.next_batch(most)
        for case in cases:
            self.insert(case)
        if known:
            self.join.settled(cases)
        else:
            self.join.give_back(cases)

    def insert(self, case: PendingUsage) -> None:
        assert case.event_id in self.requests
        self.rows.setdefault(case.event_id, usage_row(case, self.prices))

    @precondition(lambda self: self.postgres)
    @rule()
    def corrects(self) -> None:
        for (request_id, replica, partial), entry in sorted(self.journal.items(), key=lambda item: item[0][2]):
            row = self.rows.get(request_id)
            if row is None or row.count_source in ("engine", "journal"):
                continue
            if row.replica_id not in ("", replica) and row.finish != "router_lost":
                continue
            done = {name[-1] for name, made in self.corrections.items() if made[0] == request_id}
            if "2" in done or (partial and (done or row.count_source == "last_count")):
                continue
            mine = [made for made in self.corrections.values() if made[0] == request_id]
            late = Late(
                event_id=request_id,
                price_version=1,
                finish=row.finish,  # type: ignore[arg-type]
                streamed=row.streamed,
                delivered_tokens=row.delivered_tokens,
                had_input=row.input_tokens + sum(made[1] for made in mine),
                had_cached=0,
                had_output=row.output_tokens + sum(made[2] for made in mine),
                had_cost=row.cost + sum(made[3] for made in mine),
                partial=partial,
                input_tokens=entry.input_tokens,
                cached_tokens=0,
                output_tokens=entry.output_tokens,
            )
            if made := correction(late, PRICE):
                assert made.event_id not in self.corrections
                self.corrections[made.event_id] = (request_id, made.input_tokens, made.output_tokens, made.cost)

    @invariant()
    def what_is_deleted_is_settled(self) -> None:
        """An open that is on disk no more has its row."""
        on_disk = b"".join(file.read_bytes() for file in self.spool.glob("w*"))
        assert all(name in self.rows or name.encode() in on_disk for name in self.requests)

    def teardown(self) -> None:
        """All that was broken is mended, all that runs ends: then every bill is right."""
        if hasattr(self, "join"):
            self.calm_down()
            self.check()
        shutil.rmtree(self.home, ignore_errors=True)

    def calm_down(self) -> None:
        self.link(linked=True)
        self.postgres = True
        for number in self.living():
            self.worker(number).file.close()
            self.workers[number] = None
        for request in self.requests.values():
            request.known = False
            if request.at == "running":
                request.at = "left"
        self.aborts_arrive()
        self.new_ledger()
        for _ in range(3):
            self.reads()
            self.asks(beats=BEATS)
            self.settles(most=10**6, known=True)
            self.corrects()
        self.reads()

    def check(self) -> None:
        assert self.rows.keys() == self.requests.keys(), "one row each, none lost"
        assert not list(self.spool.glob("w*")), "and nothing left to settle"
        for name, row in self.rows.items():
            request, mine = self.requests[name], [made for made in self.corrections.values() if made[0] == name]
            output = row.output_tokens + sum(made[2] for made in mine)
            if request.oracle < 0:
                assert output in (0, request.made), "nobody had counted it but its router"
                continue
            assert output == request.oracle, (request, row, mine)
            assert row.input_tokens + sum(made[1] for made in mine) == INPUT
            if not mine:
                assert row.count_source in request.source, (request, row)


TestBill = Bill.TestCase
TestBill.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
