"""The ledger and the admin API as real processes over the embedded Postgres: killed, starved of Postgres, and exact to
the token.

The router's workers are played by the test: it writes spool files (and holds them open, as a living worker does) and
speaks the frames. What Postgres must hold in the end is computed here, in fractions, by other code than the ledger's.
"""

from __future__ import annotations

import asyncio
import csv
import fcntl
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from activator.wire import Done, ShipJournals, ToActivator
from pilotlight.database import embedded
from pilotlight.database.migrate import migrate
from pilotlight.frames import FrameStream, connect, serve
from pilotlight.keys import ensure_admin_key, ensure_pepper, hash_key
from pilotlight.sealed import seal
from pilotlight.settings import Paths
from router.ledger.wire import Applied, FromLedger, Policy, Spooled, WorkerHello
from router.spool.record import EndRecord, OpenRecord

PRICE = {
    "input": Fraction(10, 100),
    "cached": Fraction(5, 100),
    "output": Fraction(40, 100),
}  # of the first migration, dollars a million


class Process:
    """`python -m MODULE` on a state folder; its log is `log`."""

    def __init__(self, paths: Paths, module: str) -> None:
        self.log = paths.logs / f"{module}.{uuid.uuid4().hex[:6]}.log"
        environ = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
        environ |= {"PILOTLIGHT_STATE_DIR": str(paths.state), "PILOTLIGHT_LEDGER__CORRECTION_SECONDS": "0.3"}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen([sys.executable, "-m", module], env=environ, stdout=output, stderr=output)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def said(self, text: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if text in line["event"]]


class Worker:
    """A router worker's spool: its newest file is locked, so it counts as alive until `close`."""

    def __init__(self, paths: Paths) -> None:
        self.paths, self.id, self.number = paths, uuid.uuid4().hex, 0
        self.tokens = {"input": 0, "cached": 0, "output": 0}
        self.cost = Fraction(0)
        self.count = 0
        self._file = self._begin()

    def _begin(self) -> io.FileIO:
        file = io.FileIO(self.path, "ab")
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    @property
    def path(self) -> Path:
        return self.paths.spool / f"{self.id}.{self.number}.jsonl"

    def rotate(self) -> None:
        before, self.number = self._file, self.number + 1
        self._file = self._begin()
        before.close()

    def open(self) -> str:
        record = OpenRecord(
            event_id=f"{time.time_ns():032x}",
            org_id="default",
            endpoint_id="ep_test",
            key_id="key_test",
            path="/v1/completions",
            streamed=True,
            admitted_at=time.time(),
        )
        self.write(seal(record.model_dump_json().encode()))
        return record.event_id

    def end(self, event_id: str, **said: Any) -> None:
        record = EndRecord.model_validate(
            {"event_id": event_id, "status": 200, "finish": "complete", "replica_id": "rep"} | said
        )
        self.write(seal(record.model_dump_json().encode()))

    def request(self, dice: random.Random) -> None:
        """A whole request, counted."""
        tokens = {"input": dice.randrange(1, 5000), "output": dice.randrange(1, 3000)}
        tokens["cached"] = dice.randrange(tokens["input"])
        self.end(
            self.open(),
            input_tokens=tokens["input"],
            cached_tokens=tokens["cached"],
            output_tokens=tokens["output"],
            count_source="engine",
        )
        for name, count in tokens.items():
            self.tokens[name] += count
        plain = tokens["input"] - tokens["cached"]
        self.cost += (
            plain * PRICE["input"] + tokens["cached"] * PRICE["cached"] + tokens["output"] * PRICE["output"]
        ) / 1_000_000
        self.count += 1

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def close(self) -> None:
        self._file.close()


class Bench:
    """A state folder with a running Postgres, and one event loop for everything asynchronous."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.state = Path(tempfile.mkdtemp(prefix="pl-led-", dir="/tmp"))
        self.state.chmod(0o711)
        self.paths = Paths(self.state)
        self.start_postgres()
        runner.run(migrate(self.postgres.dsn))
        self.sql("INSERT INTO endpoints (endpoint_id, org_id, name) VALUES ('ep_test', 'default', 'test')")
        self.processes: list[Process] = []

    def start_postgres(self) -> None:
        self.postgres = self.runner.run(embedded.start(self.paths))

    def spawn(self, module: str) -> Process:
        self.processes.append(Process(self.paths, module))
        return self.processes[-1]

    def ledger(self) -> Process:
        """Start it and wait until it answers on its socket."""
        process = self.spawn("router.ledger")
        self.until(lambda: not self.runner.run(_refused(self.paths.address("ledger"))), "the ledger answers")
        return process

    def activator(self, *replicas: str, in_work: Sequence[str] = ()) -> Callable[[], None]:
        """One that answers the ledger's questions; returns how to end it. It serves while the test waits for
        something.
        """
        done = Done(ok=True, result={"replicas": list(replicas), "in_work": list(in_work)})

        async def attend(peer: FrameStream[Any]) -> None:
            assert isinstance(await peer.receive(), ShipJournals)
            peer.send(done)
            await peer.drain()

        return self.runner.run(serve(self.paths.address("activator"), ToActivator, attend)).close

    def sql(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        async def ask() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self.postgres.dsn)
            try:
                return await connection.fetch(statement, *values)
            finally:
                await connection.close()

        return self.runner.run(ask())

    def count(self) -> int:
        found: int = self.sql("SELECT count(*) FROM usage")[0][0]
        return found

    def row(self, event_id: str) -> asyncpg.Record | None:
        rows = self.sql("SELECT * FROM usage WHERE event_id = $1", event_id)
        return rows[0] if rows else None

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
        """The first true value of `condition`: for what gives nothing to wait on."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{self.logs()}"
            self.runner.run(asyncio.sleep(0.02))
        return value

    def logs(self) -> str:
        return "\n".join(process.log.read_text()[-4000:] for process in self.processes[-3:])

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        self.runner.run(self.postgres.stop())
        shutil.rmtree(self.state, ignore_errors=True)


async def _refused(address: str) -> bool:
    try:
        (await connect(address, FromLedger)).close()
    except OSError:
        return True
    return False


@pytest.fixture(scope="module")
def installation() -> Iterator[Bench]:
    with asyncio.Runner() as runner:
        bench = Bench(runner)
        try:
            yield bench
        finally:
            bench.close()


@pytest.fixture
def bench(installation: Bench) -> Iterator[Bench]:
    """Each test begins with no usage, no spool, no process, and no replica that could still say something of a lost
    router's requests.
    """
    installation.sql("TRUNCATE usage, engine_journal, keys, journals")
    installation.sql("DELETE FROM replicas")
    installation.sql("DELETE FROM prices WHERE endpoint_id IS NOT NULL")
    yield installation
    for process in installation.processes:
        process.kill()
    installation.processes.clear()
    for file in installation.paths.spool.iterdir():
        file.unlink()


def assert_exact(bench: Bench, *workers: Worker) -> None:
    """Every row once, every token, every 1e-10 dollar."""
    sums = bench.sql(
        "SELECT count(*) AS rows, sum(input_tokens)::bigint AS input, sum(cached_tokens)::bigint AS cached, "
        "sum(output_tokens)::bigint AS output, sum(cost) AS cost, count(DISTINCT event_id) AS events FROM usage"
    )[0]
    expected = {name: sum(worker.tokens[name] for worker in workers) for name in ("input", "cached", "output")}
    total = sum((worker.cost for worker in workers), Fraction(0))
    count = sum(worker.count for worker in workers)
    assert dict(sums) == {
        "rows": count,
        "events": count,
        **expected,
        "cost": Decimal(total.numerator) / Decimal(total.denominator),
    }


def test_two_thousand_requests_and_three_kills_make_exactly_two_thousand_rows(bench: Bench) -> None:
    dice, workers = random.Random(1), [Worker(bench.paths), Worker(bench.paths)]
    ledger = bench.ledger()
    for number in range(1, 2001):
        worker = workers[number % 2]
        worker.request(dice)
        if number % 700 == 0:
            worker.rotate()
        if number in (500, 1000, 1500):
            bench.until(lambda: bench.count() > 0, "settling has begun")
            ledger.kill()
            ledger = bench.ledger()
    bench.until(lambda: bench.count() >= 2000, "all is settled")
    assert_exact(bench, *workers)
    assert ledger.stop() == 0
    for worker in workers:
        worker.close()
    bench.ledger()  # reads all of it again, as the files are still there
    bench.until(lambda: not list(bench.paths.spool.iterdir()), "the dead workers' files are settled and deleted")
    assert_exact(bench, *workers)


def test_the_journal_wins_over_what_the_router_counted_and_who_failed_pays_nothing(bench: Bench) -> None:
    worker = Worker(bench.paths)
    bench.ledger()
    left, engine, failed, none = (worker.open() for _ in range(4))
    worker.end(left, finish="client_disconnect", input_tokens=10, output_tokens=3, count_source="relayed")
    worker.end(engine, input_tokens=10, output_tokens=3, count_source="engine")
    worker.end(failed, finish="upstream_error", status=502, input_tokens=1000, count_source="engine")
    worker.end(none, finish="complete", replica_id="rep", count_source="none")  # an engine that tells nothing
    bench.until(lambda: bench.row(engine), "what was told in band is settled")
    assert bench.row(left) is None
    journal = "INSERT INTO engine_journal VALUES ($1, 'default', 'rep', 1000000, 400000, 1000000, 'abort')"
    bench.sql(journal, left)
    bench.sql(journal, engine)
    bench.sql("NOTIFY journal")
    row = bench.until(lambda: bench.row(left), "the journal has come")
    assert (row["count_source"], row["output_tokens"], row["cost"]) == ("journal", 1_000_000, Decimal("0.48"))
    row = bench.row(engine)
    assert row is not None and (row["count_source"], row["output_tokens"]) == ("engine", 3)
    row = bench.row(failed)
    assert row is not None and (row["cost"], row["input_tokens"]) == (0, 1000)
    assert bench.row(none) is None, "its replica may still say something"
    away = bench.activator("rep")
    row = bench.until(lambda: bench.row(none), "its replica has said all it has")
    assert (row["count_source"], row["cost"]) == ("none", 0)
    away()
    worker.close()


def test_a_whole_answer_that_nobody_counted_is_an_event_and_one_that_its_journal_counts_is_none(bench: Bench) -> None:
    bench.sql(
        "INSERT INTO revisions (revision_id, org_id, endpoint_id, number, digest, task, min_replicas, max_replicas, idle_timeout_seconds, slots) "
        "VALUES ('rev_test', 'default', 'ep_test', 1, 'd', 'generate', 0, 1, 1, 1)"
    )
    worker = Worker(bench.paths)
    counted, *uncounted = [worker.open() for _ in range(3)]
    bench.sql("INSERT INTO engine_journal VALUES ($1, 'default', 'rep', 5, 0, 7, 'stop')", counted)
    worker.end(counted, revision_id="rev_test", count_source="none")
    for event_id in uncounted:
        worker.end(event_id, revision_id="rev_test", replica_id="", count_source="none")
    bench.ledger()
    bench.until(lambda: bench.count() == 3, "all are settled")
    row = bench.row(counted)
    assert row is not None and (row["count_source"], row["output_tokens"]) == ("journal", 7)
    events = bench.sql("SELECT kind, replica_id, endpoint_id, text FROM events WHERE revision_id = 'rev_test'")
    assert {(event["kind"], event["replica_id"], event["endpoint_id"]) for event in events} == {
        ("uncounted", "", "ep_test")
    }
    assert any(event_id in event["text"] for event in events for event_id in uncounted)
    assert not any(counted in event["text"] for event in events)


def test_what_a_dead_worker_never_ended_is_settled_from_the_journal_and_a_living_one_is_left_alone(
    bench: Bench,
) -> None:
    dead, living = Worker(bench.paths), Worker(bench.paths)
    lost, unknown, running = dead.open(), dead.open(), living.open()
    dead.write(b'{"kind":"end","event_id":"' + lost.encode())  # torn by its death
    dead.close()
    bench.sql("INSERT INTO engine_journal VALUES ($1, 'default', 'rep', 100, 0, 50, 'abort')", lost)
    ledger, away = bench.ledger(), bench.activator()
    row = bench.until(lambda: bench.row(lost), "the lost request is settled")
    assert (row["finish"], row["status"], row["count_source"], row["output_tokens"]) == (
        "router_lost",
        0,
        "journal",
        50,
    )
    assert row["replica_id"] == "rep" and row["cost"] == Decimal("0.00003")
    row = bench.until(lambda: bench.row(unknown), "nobody knows anything of this one")
    assert (row["finish"], row["count_source"], row["output_tokens"], row["cost"]) == ("router_lost", "none", 0, 0)
    bench.until(lambda: not dead.path.exists(), "its file is deleted")
    away()
    assert ledger.said("kept in rejected.jsonl")
    assert bench.row(running) is None and living.path.exists()
    living.end(running, input_tokens=1, output_tokens=1, count_source="engine")
    row = bench.until(lambda: bench.row(running), "the living one's is settled as it ended")
    assert row["finish"] == "complete"
    living.close()


def test_what_a_journal_says_too_late_is_one_row_more_and_never_a_change(bench: Bench) -> None:
    """Twice: a last durable count first, the whole line after it; and however often the ledger looks."""
    worker, ledger, away = Worker(bench.paths), bench.ledger(), bench.activator("rep")
    bench.spawn("router.admin")
    left, broken = worker.open(), worker.open()
    worker.end(left, finish="client_disconnect", output_tokens=3, count_source="relayed")
    worker.end(broken, finish="upstream_error", output_tokens=3, count_source="relayed")
    bench.until(lambda: bench.count() == 2, "both are settled by the router's own figures")
    before = {name: bench.row(name) for name in (left, broken)}
    entry = "INSERT INTO engine_journal VALUES ($1, 'default', $2, $3, 0, $4, 'abort', now(), $5)"
    bench.sql(entry, left, "another", 9, 9, False)  # it was never at that one
    bench.sql(entry, left, "rep", 1_000_000, 500_000, True)
    bench.sql(entry, broken, "rep", 1_000_000, 500_000, False)
    bench.until(lambda: bench.count() == 4, "both are corrected")
    bench.sql(entry, left, "rep", 1_000_000, 1_000_000, False)
    bench.until(lambda: bench.count() == 5, "and the first once more")
    for _ in range(2):
        ledger.kill()
        ledger = bench.ledger()  # it looks at all that is kept
        bench.runner.run(asyncio.sleep(0.5))  # what is tested is that this time passes
    assert {name: bench.row(name) for name in (left, broken)} == before, "no row ever changes"
    sums = bench.sql(
        "SELECT coalesce(corrects, event_id) AS id, count(*) AS rows, sum(input_tokens) AS input, sum(output_tokens) AS output, sum(cost) AS cost, "
        "array_agg(count_source ORDER BY settled_at) AS by FROM usage GROUP BY 1"
    )
    found = {row["id"]: dict(row) for row in sums}
    assert found[left]["rows"] == 3 and found[left]["by"] == ["relayed", "last_count", "journal"]
    assert (found[left]["input"], found[left]["output"], found[left]["cost"]) == (1_000_000, 1_000_000, Decimal("0.5"))
    assert (found[broken]["input"], found[broken]["output"]) == (1_000_000, 500_000), "what the engine made"
    assert found[broken]["cost"] == Decimal("0.1000012"), "and what came of it: three tokens"

    async def scene() -> None:
        async with admin_client(bench) as client:
            await answering(client)
            shown = (await client.get(f"/requests/{left}")).json()
            assert [row["event_id"] for row in shown["corrections"]] == [f"{left}.1", f"{left}.2"]
            assert (
                shown["output_tokens"] == 3
                and shown["total"]["output_tokens"] == 1_000_000
                and shown["total"]["cost"] == "0.5000000000"
            )
            usage = (await client.get("/usage?endpoint=test")).json()
            assert (usage["totals"]["requests"], usage["totals"]["corrections"], usage["totals"]["output_tokens"]) == (
                2,
                3,
                1_500_000,
            )
            assert {row["corrects"] for row in usage["rows"]} == {None, left, broken}
            exported = list(csv.DictReader(io.StringIO((await client.get("/usage/export?format=csv")).text)))
            assert (
                sum(int(row["output_tokens"]) for row in exported) == 1_500_000
                and sum(bool(row["corrects"]) for row in exported) == 3
            )

    bench.runner.run(scene())
    away()
    worker.close()


def test_rows_wait_for_the_journal_of_every_replica_the_endpoint_had(bench: Bench) -> None:
    """A reboot: the router is dead, the activator knows nobody yet, and one journal is on its way; then all is
    known.
    """
    bench.sql(
        "INSERT INTO revisions VALUES ('rev', 'default', 'ep_test', 99, 'd', 'generate', '{}', 0, 1, 1, 1) ON CONFLICT DO NOTHING"
    )
    bench.sql(
        "INSERT INTO replicas (replica_id, org_id, revision_id, node_id, state, ready_at) VALUES ('r1', 'default', 'rev', 'n', 'ready', now())"
    )
    bench.sql(
        "INSERT INTO replicas (replica_id, org_id, revision_id, node_id, state, ready_at, stopped_at) "
        "VALUES ('r2', 'default', 'rev', 'n', 'stopped', now(), now()), ('old', 'default', 'rev', 'n', 'stopped', now(), now() - interval '1 day')"
    )
    worker = Worker(bench.paths)
    lost, nothing = worker.open(), worker.open()
    worker.close()
    bench.ledger()
    away = bench.activator()
    bench.runner.run(asyncio.sleep(1.5))  # what is tested is that this time passes
    assert bench.count() == 0
    away()
    away = bench.activator("r1")
    bench.runner.run(asyncio.sleep(1.0))
    assert bench.count() == 0, "r2 has not said all it has"
    bench.sql("INSERT INTO engine_journal VALUES ($1, 'default', 'r2', 100, 0, 50, 'abort')", lost)
    bench.sql("INSERT INTO journals VALUES ('r2', 'default')")
    row = bench.until(lambda: bench.row(lost), "its journal is here")
    assert (row["finish"], row["count_source"], row["output_tokens"], row["replica_id"]) == (
        "router_lost",
        "journal",
        50,
        "r2",
    )
    row = bench.until(lambda: bench.row(nothing), "nobody ever had this one")
    assert (row["count_source"], row["cost"]) == ("none", 0)
    away()


def test_postgres_away_loses_nothing_and_is_told_once(bench: Bench) -> None:
    dice, worker = random.Random(2), Worker(bench.paths)
    ledger = bench.ledger()
    for _ in range(300):
        worker.request(dice)
    bench.until(lambda: bench.count() == 300, "the first are settled")
    bench.runner.run(bench.postgres.stop())
    for _ in range(300):
        worker.request(dice)
    worker.rotate()
    for _ in range(300):
        worker.request(dice)
    bench.until(lambda: len(ledger.said("Postgres is away")) >= 2, "the listener and the settler have noticed")
    ledger.kill()
    ledger = bench.ledger()  # and a start without Postgres
    bench.until(lambda: ledger.said("Postgres is away"), "it has noticed, too")
    bench.start_postgres()
    bench.until(lambda: bench.count() >= 900, "all is settled")
    assert_exact(bench, worker)
    told = [line["action"] for line in ledger.said("Postgres is away")]
    assert len(told) == len(set(told)) <= 4
    assert "Traceback" not in ledger.log.read_text()
    worker.close()


def test_sigterm_settles_what_is_on_disk_and_ends_well(bench: Bench) -> None:
    dice, worker = random.Random(3), Worker(bench.paths)
    ledger = bench.ledger()
    for _ in range(1000):
        worker.request(dice)
    worker.open()  # still running: stays for the next start
    assert ledger.stop() == 0
    assert_exact(bench, worker)
    assert "Traceback" not in ledger.log.read_text()
    worker.close()


def test_a_line_that_is_no_record_and_a_row_postgres_never_takes_hold_up_nobody(bench: Bench) -> None:
    dice, worker = random.Random(4), Worker(bench.paths)
    bench.ledger()
    worker.request(dice)
    worker.write(b"nonsense\n")
    never = worker.open()
    # the cost has more digits than the column
    worker.end(never, input_tokens=2**62, output_tokens=2**62, count_source="engine")
    worker.request(dice)
    bench.until(lambda: bench.count() == 2, "the good ones are settled")
    kept = bench.paths.spool / "rejected.jsonl"
    bench.until(lambda: kept.exists() and never in kept.read_text(), "the row is kept aside")
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert {line["file"] for line in lines} == {worker.path.name, "usage"} and len(lines) == 3
    assert_exact(bench, worker)
    worker.close()


def admin_client(bench: Bench) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=bench.paths.address("admin").removeprefix("unix:"), retries=0)
    headers = {"authorization": f"Bearer {ensure_admin_key(bench.paths)}"}
    return httpx.AsyncClient(transport=transport, base_url="http://admin/api/v1", headers=headers)


async def answering(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await client.get("/endpoints")
                return
            except httpx.TransportError:
                await asyncio.sleep(0.02)  # the process is starting: nothing to wait on


async def next_policy(stream: FrameStream[Any], seconds: float) -> Policy:
    async with asyncio.timeout(seconds):
        while not isinstance(frame := await stream.receive(), Policy):
            assert frame is not None, "the ledger closed the connection"
        return frame


async def obey(stream: FrameStream[Any], policies: asyncio.Queue[Policy]) -> None:
    """A worker that serves by each policy at once."""
    async for frame in stream:
        if isinstance(frame, Policy):
            policies.put_nowait(frame)
            stream.send(Applied(version=frame.version))


def test_a_key_reaches_a_worker_within_a_second_and_its_revocation_likewise(bench: Bench) -> None:
    bench.ledger()
    bench.spawn("router.admin")

    async def scene() -> None:
        stream = await connect(bench.paths.address("ledger"), FromLedger)
        stream.send(WorkerHello(worker_id="w", pid=os.getpid()), Spooled(file="w.0.jsonl", bytes=0))
        policies: asyncio.Queue[Policy] = asyncio.Queue()
        obeying = asyncio.create_task(obey(stream, policies))
        before = await asyncio.wait_for(policies.get(), 60)
        async with admin_client(bench) as client:
            await answering(client)
            made = await client.post("/endpoints/test/keys", json={"name": "laptop"})
            assert made.status_code == 201, made.text
            policy = policies.get_nowait()  # the answer came after it: no 401 for a key just shown
            key, key_id = made.json()["key"], made.json()["key_id"]
            assert made.json()["everywhere"] is True
            hashed = hash_key(ensure_pepper(bench.paths), key).hex()
            assert [(row.hash, row.key_id, row.endpoint_id, row.scope) for row in policy.keys] == [
                (hashed, key_id, "ep_test", "inference")
            ]
            assert policy.version > before.version and abs(policy.ahead_seconds) < 5
            assert Policy.model_validate_json(bench.paths.policy.read_bytes()) == policy
            listed = (await client.get("/endpoints/test/keys")).json()["data"]
            assert [(row["last_four"], row["revoked_at"]) for row in listed] == [(key[-4:], None)] and key not in str(
                listed
            )
            gone = await client.delete(f"/keys/{key_id}")
            assert (gone.status_code, gone.json()["everywhere"], policies.get_nowait().keys) == (200, True, ())
            assert (await client.post(f"/keys/{key_id}/rotate")).status_code == 404, "it lives no more"
            old = (await client.post("/endpoints/test/keys", json={"name": "web", "expires_in_seconds": 7200})).json()
            assert abs(policies.get_nowait().keys[0].expires_at - time.time() - 7200) < 60
            new = (await client.post(f"/keys/{old['key_id']}/rotate", json={"grace_seconds": 3600})).json()
            assert (new["replaces"], new["name"], new["endpoint"], new["everywhere"]) == (
                old["key_id"],
                "web",
                "test",
                True,
            )
            left = {row.key_id: row.expires_at - time.time() for row in policies.get_nowait().keys}
            assert abs(left[old["key_id"]] - 3600) < 60 and abs(left[new["key_id"]] - 7200) < 60, (
                "the new one is given as long as the old"
            )
            last = (await client.post(f"/keys/{old['key_id']}/rotate", json={"grace_seconds": 9e6})).json()
            left = {row.key_id: row.expires_at - time.time() for row in policies.get_nowait().keys}
            assert abs(left[old["key_id"]] - 3600) < 60, "a second rotation gives the old one no more time"
            now = (
                await client.post(f"/keys/{last['key_id']}/rotate", json={"grace_seconds": 0, "expires_in_seconds": 60})
            ).json()
            assert now["replaced_revoked_at"] and {row.key_id for row in policies.get_nowait().keys} == {
                old["key_id"], new["key_id"], now["key_id"],
            }  # fmt: skip
            states = {
                row["key_id"]: bool(row["revoked_at"])
                for row in (await client.get("/endpoints/test/keys")).json()["data"]
            }
            assert states[last["key_id"]] and not states[now["key_id"]]
        stream.close()
        await obeying

    bench.runner.run(scene())
    socket = Path(bench.paths.address("admin").removeprefix("unix:"))
    assert socket.stat().st_mode & 0o777 == 0o600


def test_the_policy_is_served_without_postgres(bench: Bench) -> None:
    ledger = bench.ledger()

    async def policy() -> Policy:
        stream = await connect(bench.paths.address("ledger"), FromLedger)
        stream.send(WorkerHello(worker_id="w", pid=os.getpid()))
        try:
            return await next_policy(stream, 60)
        finally:
            stream.close()

    bench.sql("INSERT INTO keys VALUES ('key_1', 'default', 'ep_test', 'inference', '', '\\x01', 'pl_ab', 'wxyz')")
    bench.sql("NOTIFY policy")
    bench.until(lambda: [key.key_id for key in bench.runner.run(policy()).keys] == ["key_1"], "the key is known")
    bench.runner.run(bench.postgres.stop())
    ledger.kill()
    ledger = bench.ledger()
    assert [key.key_id for key in bench.runner.run(policy()).keys] == ["key_1"]
    ledger.process.send_signal(signal.SIGSTOP)  # it must not be back before the key is gone
    bench.start_postgres()
    bench.sql("DELETE FROM keys")  # and nobody notifies: it reads everything anew when it is connected again
    ledger.process.send_signal(signal.SIGCONT)
    bench.until(lambda: bench.runner.run(policy()).keys == (), "Postgres' word counts again")


def test_usage_over_the_admin_api_is_what_postgres_holds(bench: Bench) -> None:
    dice, worker = random.Random(5), Worker(bench.paths)
    bench.ledger()
    bench.spawn("router.admin")
    for _ in range(30):
        worker.request(dice)
    bench.until(lambda: bench.count() == 30, "all is settled")

    async def scene() -> None:
        async with admin_client(bench) as client:
            await answering(client)
            answer = (await client.get("/usage", params={"endpoint": "test", "limit": 10})).json()
            totals, rows = answer["totals"], answer["rows"]
            assert (totals["requests"], totals["input_tokens"], totals["output_tokens"]) == (
                30,
                worker.tokens["input"],
                worker.tokens["output"],
            )
            assert isinstance(totals["cost"], str) and Fraction(totals["cost"]) == worker.cost
            assert len(rows) == 10 and [row["admitted_at"] for row in rows] == sorted(
                (row["admitted_at"] for row in rows), reverse=True
            )
            assert isinstance(rows[0]["cost"], str) and rows[0]["endpoint"] == "test"
            later = (await client.get("/usage", params={"since": rows[4]["admitted_at"]})).json()
            assert later["totals"]["requests"] == 5
            one = (await client.get(f"/requests/{rows[0]['event_id']}")).json()
            assert one["phases"] == [] and one["event_id"] == rows[0]["event_id"]
            assert (await client.get("/requests/none")).status_code == 404
            endpoint = (await client.get("/endpoints/test")).json()
            assert endpoint["endpoint_id"] == "ep_test" and endpoint["route"] == []
            assert (await client.get("/status")).status_code == 503, "no activator runs here"

    bench.runner.run(scene())
    worker.close()


def test_a_new_price_counts_at_once_and_never_for_what_was_settled(bench: Bench) -> None:
    worker = Worker(bench.paths)
    bench.ledger()
    bench.spawn("router.admin")
    prices = {"input_per_million": "1.0000000001", "cached_per_million": 0.1, "output_per_million": "12345.0123456789"}
    told = {"input_tokens": 1_000_000, "cached_tokens": 0, "output_tokens": 1_000_000, "count_source": "engine"}

    def settled() -> dict[str, Any]:
        event_id = worker.open()
        worker.end(event_id, **told)
        return dict(bench.until(lambda: bench.row(event_id), "it is settled"))

    before = settled()
    running = worker.open()  # admitted under the old price, settled under the new one

    async def scene() -> tuple[dict[str, Any], dict[str, Any]]:
        async with admin_client(bench) as client:
            await answering(client)
            assert (await client.get("/endpoints/test/prices")).json()["in_force"][
                "input_per_million"
            ] == "0.1000000000"
            made = await client.put("/endpoints/test/prices", json=prices)
            assert made.status_code == 201, made.text
            later = await client.put(
                "/endpoints/test/prices", json=prices | {"valid_from": "2999-01-01T00:00:00+01:00"}
            )
            assert later.json()["valid_from"] == "2998-12-31T23:00:00+00:00"
            return made.json(), (await client.get("/endpoints/test/prices")).json()

    made, listed = bench.runner.run(scene())
    assert (made["input_per_million"], made["cached_per_million"]) == ("1.0000000001", "0.1000000000")
    assert [row["version"] for row in listed["data"]] == [made["version"] + 1, made["version"]]
    assert listed["in_force"]["version"] == made["version"]
    after = settled()
    assert (after["price_version"], after["cost"]) == (made["version"], Decimal("12346.0123456790"))
    worker.end(running, **told)
    row = bench.until(lambda: bench.row(running), "the one that ran meanwhile is settled")
    assert (row["price_version"], row["cost"]) == (before["price_version"], before["cost"]) == (1, Decimal("0.5"))
    unchanged = bench.row(before["event_id"])
    assert unchanged is not None and dict(unchanged) == before, "what was billed stays as it was"
    worker.close()


MANY = """
INSERT INTO usage (event_id, org_id, endpoint_id, key_id, path, streamed, status, finish, start, admitted_at, hold_ms, first_byte_ms, total_ms,
                   phases, input_tokens, cached_tokens, output_tokens, count_source, price_version, cost)
SELECT 'e' || lpad(n::text, 6, '0'), 'default', CASE n % 5 WHEN 0 THEN 'ep_test' ELSE 'ep_other' END, 'k',
       CASE n % 7 WHEN 0 THEN '=HYPERLINK("http://x","' || n || '")' ELSE '/v1/completions' END, n % 2 = 0, 200, 'complete', 'cold',
       to_timestamp(1700000000 + n), 1.5, NULL, 2.5, '[{"name":"load","at":1.0,"seconds":0.25}]', n, 0, 2 * n, 'engine', 1, n * 0.0000000001
FROM generate_series(1, $1::integer) AS n
"""


def test_an_export_is_whole_exact_and_takes_no_memory_that_grows_with_it(bench: Bench) -> None:
    count = 50_000
    bench.sql(MANY, count)
    admin = bench.spawn("router.admin")

    def memory() -> int:
        return int(Path(f"/proc/{admin.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async def export(client: httpx.AsyncClient, **query: Any) -> tuple[str, int]:
        """(all of it, the most memory the process had meanwhile)."""
        pieces, most = [], 0
        async with client.stream("GET", "/usage/export", params=query) as answer:
            assert answer.status_code == 200
            async for piece in answer.aiter_text():
                pieces.append(piece)
                most = max(most, memory())
        return "".join(pieces), most

    async def scene() -> None:
        async with admin_client(bench) as client:
            await answering(client)
            await export(client, since=1700000000 + count - 1000)
            await export(client, since=1700000000 + count - 1000, format="jsonl")
            before = memory()
            text, most_csv = await export(client)
            lines, most_jsonl = await export(client, format="jsonl")
            listed = (await client.get("/usage", params={"limit": 1})).json()["rows"][0]
            some, _ = await export(client, endpoint="test", since="2023-11-14T22:13:30Z", until=1700000021)
        rows = list(csv.DictReader(io.StringIO(text)))
        parsed = [json.loads(line) for line in lines.splitlines()]
        assert (
            len(rows) == len(parsed) == count
            and list(rows[0]) == list(listed)
            and list(parsed[0]) == [*listed, "phases"]
        )
        assert (
            sum(Fraction(row["cost"]) for row in rows)
            == sum(Fraction(row["cost"]) for row in parsed)
            == Fraction(count * (count + 1), 2 * 10**10)
        )
        assert (
            [row["event_id"] for row in rows]
            == sorted(row["event_id"] for row in rows)
            == [row["event_id"] for row in parsed]
        )
        assert (
            rows[6]["path"] == """'=HYPERLINK("http://x","7")"""
            and parsed[6]["path"] == """=HYPERLINK("http://x","7")"""
        )
        assert rows[0]["first_byte_ms"] == "" and rows[0]["streamed"] == "false" and rows[0]["cost"] == "0.0000000001"
        assert parsed[0]["phases"] == [{"name": "load", "at": 1.0, "seconds": 0.25}] and parsed[-1] == listed | {
            "phases": parsed[0]["phases"]
        }
        assert [row["event_id"] for row in csv.DictReader(io.StringIO(some))] == ["e000010", "e000015", "e000020"]
        assert len(lines) > 20 << 20, "as text alone it is more than what it may take"
        assert max(most_csv, most_jsonl) - before < 8 << 20, f"it grew from {before} to {most_csv} and {most_jsonl}"

    bench.runner.run(scene())


def test_exports_are_few_left_ones_end_and_one_cut_off_is_never_taken_for_whole(bench: Bench) -> None:
    bench.sql(MANY, 50_000)
    admin = bench.spawn("router.admin")

    def cursors() -> int:
        found: int = bench.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pilotlight admin export'"
        )[0][0]
        return found

    async def two_at_once() -> None:
        async with admin_client(bench) as client:
            await answering(client)
            async with client.stream("GET", "/usage/export") as first, client.stream("GET", "/usage/export") as second:
                assert (first.status_code, second.status_code) == (200, 200)  # and nobody reads them
                third = await client.get("/usage/export")
                assert (third.status_code, third.headers["retry-after"]) == (503, "5")
                assert (await client.get("/usage")).status_code == 200

    async def cut_off() -> None:
        async with (
            admin_client(bench) as client,
            client.stream("GET", "/usage/export", params={"format": "jsonl"}) as answer,
        ):
            assert answer.status_code == 200
            await bench.postgres.stop()
            with pytest.raises(httpx.RemoteProtocolError):
                await answer.aread()

    async def refused() -> None:
        async with admin_client(bench) as client:
            answer = await client.get("/usage/export")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")

    bench.runner.run(two_at_once())
    bench.until(lambda: cursors() == 0, "the cursors of clients that left are closed")
    bench.runner.run(cut_off())
    bench.runner.run(refused())
    bench.start_postgres()
    assert admin.said("broken off") and "Traceback" not in admin.log.read_text()


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_postgres_gone_in_the_middle_of_statements_is_survived_by_ledger_and_admin(bench: Bench, how: str) -> None:
    dice, worker = random.Random(6), Worker(bench.paths)
    ledger, admin = bench.ledger(), bench.spawn("router.admin")

    async def scene() -> None:
        holder, watcher = await asyncpg.connect(bench.postgres.dsn), await asyncpg.connect(bench.postgres.dsn)
        async with admin_client(bench) as client:
            await answering(client)
            await holder.execute("BEGIN; LOCK TABLE usage")
            try:
                for _ in range(10):
                    worker.request(dice)
                asked = [
                    asyncio.ensure_future(client.get(path)) for path in ("/usage", "/usage/export", "/requests/e1")
                ]
                async with asyncio.timeout(60):
                    while (
                        len(
                            cut := await watcher.fetch(
                                "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                            )
                        )
                        < 4
                    ):
                        await asyncio.sleep(0.02)  # until the ledger and these three are in the middle
                if how == "killed":  # one is enough: the postmaster then ends all others at once
                    os.kill(cut[0]["pid"], signal.SIGKILL)
                await bench.postgres.stop()
            finally:
                holder.terminate()
                watcher.terminate()
            for answer in await asyncio.gather(*asked):
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "2"), answer.text
            assert (await client.get("/usage")).status_code == 503

    bench.runner.run(scene())
    bench.until(lambda: ledger.said("Postgres is away"), "the ledger has noticed")
    bench.start_postgres()
    bench.until(lambda: bench.count() >= 10, "all is settled")
    assert_exact(bench, worker)
    assert ledger.process.poll() is None and admin.process.poll() is None
    assert "Traceback" not in ledger.log.read_text() + admin.log.read_text()
    worker.close()


ROUTER = """
import asyncio, os, sys, time
from pathlib import Path
from pilotlight.frames import connect
from pilotlight.sealed import seal
from router.spool.record import EndRecord, OpenRecord
from router.spool.spool import Spool
from router.ledger.wire import FromLedger, Spooled, WorkerHello

async def main(folder, address):
    stream = await connect(address, FromLedger)
    stream.send(WorkerHello(worker_id="real", pid=os.getpid()))
    spool = Spool(Path(folder), "real", loop=asyncio.get_running_loop())
    spool.tell(lambda file, size: stream.send(Spooled(file=file, bytes=size)))
    for number in range(201):
        who = {"org_id": "default", "endpoint_id": "ep_test", "key_id": "k", "path": "/", "streamed": False}
        opened = OpenRecord(event_id=f"e{number}", admitted_at=time.time(), **who)
        last = spool.open(seal(opened.model_dump_json().encode()))
        if number < 200:
            ended = EndRecord(event_id=f"e{number}", status=200, finish="complete", output_tokens=1, count_source="engine")
            spool.end(seal(ended.model_dump_json().encode()))
    spool.when_synced(last, lambda: print("synced", flush=True))
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


def test_the_routers_own_spool_is_settled_and_its_death_noticed(bench: Bench) -> None:
    bench.ledger()
    command = [sys.executable, "-c", ROUTER, str(bench.paths.spool), bench.paths.address("ledger")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as router:
        assert router.stdout is not None and router.stdout.readline() == b"synced\n"
        bench.until(lambda: bench.count() == 200, "all that ended is settled")
        bench.sql("INSERT INTO engine_journal VALUES ('e200', 'default', 'rep', 100, 0, 50, 'abort')")
        assert bench.row("e200") is None
        router.kill()
    away = bench.activator("rep")  # its word that no other replica has anything to say of it
    row = bench.until(lambda: bench.row("e200"), "what it never ended is given up")
    away()
    assert (row["finish"], row["count_source"]) == ("router_lost", "journal")
    bench.until(lambda: not list(bench.paths.spool.iterdir()), "its file is deleted")
    assert bench.count() == 201
