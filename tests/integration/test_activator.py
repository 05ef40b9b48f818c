"""The activator as a process, with the real Postgres and real sockets; only its node's agent is a stand-in.

The agent lives in the test, so that the activator may be killed by -9 and find it again; where the identity of its
process matters, a child that sleeps lends its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from activator.client import ActivatorError, command, subscribe
from activator.edges import catalogue_file as kept
from activator.edges.commands import Commands
from activator.edges.lease import Lease
from activator.edges.machine_lock import MachineLock
from activator.errors import LeadershipLost
from activator.events import ArgumentsAsked, EndpointStored
from activator.launchers.process import ProcessLauncher
from activator.store import cold_starts
from activator.store.cold_starts import ColdStart
from activator.wire import Demand, Deploy, Done, EndpointRow, Remove, Rollback, RouterHello, Status, Table
from pilotlight import epoch_file, frames
from pilotlight.database import embedded
from pilotlight.database.migrate import migrate
from pilotlight.frames import FrameStream
from pilotlight.processes import start_time
from pilotlight.settings import Paths
from router import admin, ledger
from router.ledger.postgres import read_sql
from router.ledger.prices import Price, PriceList
from runtime.wire import Drain, Park, Phase, Start, Stop, Unpark, UsageBatch, UsageEntry, UsageStored
from tests.fakes_activator import DIGEST, FakeAgent, report

SETTINGS = {
    "PILOTLIGHT_ACTIVATOR__SETTLE_SECONDS": "0.3",
    "PILOTLIGHT_ACTIVATOR__TICK_SECONDS": "0.05",
    "PILOTLIGHT_ACTIVATOR__BACKOFF_SECONDS": "0.2",
}


class Router:
    """A router worker that applies every table at once and says so."""

    def __init__(self, router_id: str = "w1") -> None:
        self.router_id = router_id
        self.rows: dict[str, EndpointRow] = {}
        self.at = (0, 0)
        self.requests: dict[str, int] = {}
        self.lost = asyncio.Event()
        self._sequence = 0
        self._changed = asyncio.Condition()
        self._stream: FrameStream[Any] | None = None
        self._task: asyncio.Task[None] | None = None

    async def connect(self, paths: Paths) -> None:
        """Connect, however long nobody listens."""
        while True:
            try:
                self._stream = await subscribe(
                    paths.address("activator"), RouterHello(router_id=self.router_id, boot_id="b")
                )
                break
            except OSError:
                await asyncio.sleep(0.01)
        self.lost.clear()
        self._task = asyncio.ensure_future(self._listen(self._stream))

    def demand(self, count: int, revision_id: str) -> None:
        self.requests = {key: n for key, n in (self.requests | {revision_id: count}).items() if n}
        self._tell()

    async def sees(self, condition: Callable[[dict[str, EndpointRow]], Any], what: str, seconds: float = 60.0) -> Any:
        """Wait for a table that fulfils the condition; returns what it returned."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                return await self._changed.wait_for(lambda: condition(self.rows))
        except TimeoutError:
            raise AssertionError(f"not within {seconds} s: {what}; the table is {self.rows}") from None

    async def ready(self, name: str = "demo") -> str:
        """The one replica of an endpoint, once it is ready."""
        found = await self.sees(
            lambda rows: [r for row in rows[name].revisions for r in row.replicas if not r.draining], f"{name} is ready"
        )
        (replica,) = found
        return str(replica.replica_id)

    async def zero(self, name: str = "demo") -> None:
        await self.sees(
            lambda rows: not any(row.replicas or row.starting for row in rows[name].revisions), f"{name} is at zero"
        )

    def close(self) -> None:
        if self._task:
            self._task.cancel()
        if self._stream:
            self._stream.close()

    def _tell(self) -> None:
        if self._stream:
            self._sequence += 1
            self._stream.send(Demand(sequence=self._sequence, requests=self.requests, table_sequence=self.at[1]))

    async def _listen(self, stream: FrameStream[Any]) -> None:
        async for frame in stream:
            if isinstance(frame, Table):
                assert (frame.epoch, frame.sequence) >= self.at, "a table went backwards"
                self.at = (frame.epoch, frame.sequence)
                self.rows = {} if frame.whole else self.rows
                self.rows |= {row.name: row for row in frame.endpoints}
                for name in frame.removed:
                    self.rows.pop(name, None)
                async with self._changed:
                    self._changed.notify_all()
            self._tell()
        self.lost.set()


KEYS_AND_PRICES = (
    """
    INSERT INTO keys (key_id, org_id, endpoint_id, scope, hash, prefix, last_four, revoked_at)
    SELECT 'k' || n, 'default', $1, 'inference', n::text::bytea, '', '', CASE n WHEN 0 THEN '2020-01-01'::timestamptz END
    FROM generate_series(0, 2) AS n""",
    """
    INSERT INTO prices (price_id, org_id, endpoint_id, input_per_million, cached_per_million, output_per_million, valid_from)
    SELECT coalesce('p' || n, 'default'), 'default', CASE WHEN n IS NOT NULL THEN $1 END, 7, 7, 7, now() + make_interval(days => coalesce(n, -9))
    FROM unnest(ARRAY[NULL, -1, 1]) AS n""",
)  # one key is revoked already; the second of the endpoint's own prices is to begin tomorrow


class Installation:
    """A state folder with Postgres, an agent, and an activator that may be killed."""

    def __init__(self, state: Path) -> None:
        self.paths = Paths(state)
        self.dsn = ""
        self.agent = FakeAgent()
        self.router = Router()
        self.activator: asyncio.subprocess.Process | None = None
        self.node: asyncio.subprocess.Process | None = None
        self.environ = os.environ | SETTINGS | {"PILOTLIGHT_STATE_DIR": str(state)}
        self.environ.pop("DATABASE_URL", None)

    async def begin(self) -> None:
        """An agent that listens, with the identity of a process that only sleeps."""
        self.paths.make()
        await self.agent.serve(self.paths.address("agent"))
        self.node = await asyncio.create_subprocess_exec(sys.executable, "-c", "import signal; signal.pause()")
        (self.paths.run / "agent.id").write_text(f"{self.node.pid} {start_time(self.node.pid)}")
        await self.start()

    async def start(self) -> None:
        with (self.paths.logs / "activator.log").open("ab") as output:
            self.activator = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "activator", env=self.environ, stdout=output, stderr=output
            )

    async def signal(self, number: signal.Signals) -> int:
        assert self.activator
        self.activator.send_signal(number)
        async with asyncio.timeout(60):
            return await self.activator.wait()

    async def deploy(self, **given: Any) -> dict[str, Any]:
        values: dict[str, Any] = {"org_id": "default", "name": "demo", "digest": DIGEST, "slots": 4}
        return await self.command(Deploy(**values | given))

    async def command(self, frame: Deploy | Rollback | Remove | Status) -> dict[str, Any]:
        """As soon as somebody listens. Raises ActivatorError."""
        async with asyncio.timeout(60):
            while True:
                try:
                    return (await command(self.paths.address("activator"), frame)).result
                except OSError:
                    await asyncio.sleep(0.01)

    async def fetch(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetch(statement, *values)
        finally:
            await connection.close()

    async def price_in_force(self, endpoint_id: str) -> str:
        """As the admin API says it."""
        (row,) = await self.fetch(read_sql(Path(admin.__file__).parent / "sql", "find_price"), endpoint_id, "default")
        return str(row["price_id"])

    async def prices_at(self, endpoint_id: str, *days: float) -> list[str]:
        """As the ledger charges what is admitted so many days from now."""
        ids = {row["version"]: row["price_id"] for row in await self.fetch("SELECT version, price_id FROM prices")}
        rows = await self.fetch(read_sql(Path(ledger.__file__).parent / "sql", "list_prices"))
        listed = PriceList(
            Price(row["version"], row["org_id"], row["endpoint_id"], row["valid_from"], 1, 1, 1, row["ends"])
            for row in rows
        )
        now = time.time()
        return [
            ids[listed.at(org_id="default", endpoint_id=endpoint_id, admitted_at=now + day * 86400).version]
            for day in days
        ]

    async def states(self) -> dict[str, str]:
        return {row["replica_id"]: row["state"] for row in await self.fetch("SELECT replica_id, state FROM replicas")}

    async def written(self, expected: dict[str, str]) -> None:
        """Postgres follows the decisions; wait until it has these."""
        deadline = time.monotonic() + 60
        while (found := await self.states()) != expected:
            assert time.monotonic() < deadline, f"expected {expected}, Postgres has {found}"
            await asyncio.sleep(0.02)

    async def became(self, revision_id: str, expected: tuple[str, str]) -> None:
        """Wait until Postgres has this outcome of a revision, and why."""
        deadline = time.monotonic() + 60
        while (
            tuple((await self.fetch("SELECT outcome, failure FROM revisions WHERE revision_id = $1", revision_id))[0])
            != expected
        ):
            assert time.monotonic() < deadline, f"{revision_id} has not become {expected}"
            await asyncio.sleep(0.02)

    async def end(self) -> None:
        self.router.close()
        for process in (self.activator, self.node):
            if process and process.returncode is None:
                process.kill()
                await process.wait()
        await self.agent.close()


@pytest.fixture(scope="module")
def state() -> Iterator[tuple[Path, str]]:
    """One Postgres for the module; its state folder's other contents are each test's own."""
    folder = Path(tempfile.mkdtemp(prefix="pl-act-", dir="/tmp"))
    folder.chmod(0o711)
    with asyncio.Runner() as runner:
        server = runner.run(embedded.start(Paths(folder)))
        try:
            runner.run(migrate(server.dsn))
            yield folder, server.dsn
        finally:
            runner.run(server.stop())
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def all_of_it(state: tuple[Path, str], request: pytest.FixtureRequest) -> AsyncIterator[Installation]:
    """With further settings of its activator, where the test has them."""
    folder, dsn = state
    installation = Installation(folder)
    installation.environ |= getattr(request, "param", {})
    installation.dsn = dsn
    connection = await asyncpg.connect(dsn)
    await connection.execute("TRUNCATE endpoints, revisions, replicas, engine_journal CASCADE")
    await connection.close()
    try:
        await installation.begin()
        yield installation
    except BaseException:
        print((installation.paths.logs / "activator.log").read_text())
        raise
    finally:
        await installation.end()
        log = installation.paths.logs / "activator.log"
        print(log.read_text()[-20000:])
        log.unlink()


async def test_from_deploy_to_zero(all_of_it: Installation) -> None:
    agent, router = all_of_it.agent, all_of_it.router
    await router.connect(all_of_it.paths)
    deployed = await all_of_it.deploy(idle_timeout_seconds=0.5)
    assert (deployed["name"], deployed["number"], deployed["changed"]) == ("demo", 1, True)
    row = router.rows["demo"]
    assert (row.endpoint_id, row.org_id, row.route) == (
        deployed["endpoint_id"],
        "default",
        ((deployed["revision_id"], 100),),
    )
    again = await all_of_it.deploy(idle_timeout_seconds=0.5)
    assert (again["revision_id"], again["changed"]) == (deployed["revision_id"], False)

    router.demand(3, deployed["revision_id"])
    start = await agent.expect(Start)
    assert (start.revision_id, start.endpoint, start.digest, start.slots) == (
        deployed["revision_id"],
        "demo",
        DIGEST,
        4,
    )
    assert start.sequence > 0 and start.epoch == router.at[0]
    replica_id = await router.ready()
    assert replica_id == start.replica_id
    (replica,) = router.rows["demo"].revisions[0].replicas
    assert [phase.name for phase in replica.phases] == ["place", "load"]
    assert router.rows["demo"].revisions[0].expected_seconds > 0
    await all_of_it.written({replica_id: "ready"})
    status = await all_of_it.command(Status())
    (endpoint,), (node,) = status["endpoints"], status["nodes"]
    assert endpoint["revisions"][0]["replicas"][0]["replica_id"] == replica_id
    assert (endpoint["revisions"][0]["demand"], node["node_id"], node["connected"]) == (3, "n1", True)
    json.dumps(status)

    router.demand(0, deployed["revision_id"])
    ended_at = time.monotonic()
    drain = await agent.expect(Drain)
    assert drain.replica_id == replica_id and time.monotonic() - ended_at >= 0.45
    await router.zero()
    await all_of_it.written({replica_id: "stopped"})
    (stored,) = await all_of_it.fetch("SELECT *, phases::text AS told FROM replicas")
    assert stored["started_at"] <= stored["ready_at"] <= stored["stopped_at"]
    (cold,) = await all_of_it.fetch("SELECT *, phases::text AS told FROM cold_starts")
    assert (cold["cold_start_id"], cold["replica_id"], cold["endpoint_id"]) == (replica_id, replica_id, row.endpoint_id)
    assert (cold["rung"], cold["reason"], cold["snapshot_bytes"]) == (replica.rung, "", 0) and 0 < cold["seconds"] < 60
    assert [phase["name"] for phase in json.loads(cold["told"])] == ["place", "load"]
    assert [phase["name"] for phase in json.loads(stored["told"])] == ["place", "load"]


async def test_the_oldest_cold_starts_of_an_endpoint_give_way_and_none_is_written_twice(
    all_of_it: Installation,
) -> None:
    await all_of_it.router.connect(all_of_it.paths)
    deployed = await all_of_it.deploy()
    connection = await asyncpg.connect(all_of_it.dsn)
    try:
        for number in range(5):
            began = 100.0 + number
            phases = (Phase(name="place", at=began, seconds=0.0), Phase(name="canary", at=began, seconds=number))
            ended = began + 50.0  # nobody looked when it was ready
            start = ColdStart(
                f"r{number}", deployed["revision_id"], "r", "n1", "parked", phases, began, ended, "" if number else "no"
            )
            await cold_starts.add(connection, start, 200.0)
            await cold_starts.add(connection, start, 300.0)
        assert [past.seconds for past in await cold_starts.past(connection)] == [1.0, 2.0, 3.0, 4.0], (
            "oldest first, none that failed"
        )
        await connection.execute(cold_starts.SQL["prune"], deployed["revision_id"], 2)
        kept = await connection.fetch(
            "SELECT cold_start_id, extract(epoch FROM now() - started_at) AS age FROM cold_starts ORDER BY 1"
        )
        assert [row["cold_start_id"] for row in kept] == ["r3", "r4"] and 90 < kept[0]["age"] < 300
    finally:
        await connection.close()


@pytest.mark.parametrize("all_of_it", [{"PILOTLIGHT_ACTIVATOR__TICK_SECONDS": "60"}], indirect=True, ids=["no tick"])
async def test_how_long_a_demand_frame_takes_to_become_a_start(all_of_it: Installation) -> None:
    """It waits for nothing: not for the next look at the time, of which there is none here."""
    agent, router = all_of_it.agent, all_of_it.router
    await router.connect(all_of_it.paths)
    revisions = [(await all_of_it.deploy(name=f"demo{number}"))["revision_id"] for number in range(20)]
    took = []
    for revision_id in revisions:
        await asyncio.sleep(0.02)  # let what the one before caused go by
        begun = time.monotonic()
        router.demand(1, revision_id)
        while True:
            at, frame = await agent.received.get()
            if isinstance(frame, Start):
                took.append(at - begun)
                break
    print(f"demand to start: p50 {statistics.median(took) * 1000:.2f} ms, max {max(took) * 1000:.2f} ms")
    assert max(took) < 10.0


async def test_kill_9_of_the_activator_strands_nothing(all_of_it: Installation) -> None:
    agent, router = all_of_it.agent, all_of_it.router
    await router.connect(all_of_it.paths)
    revision_id = (await all_of_it.deploy(idle_timeout_seconds=0.5))["revision_id"]
    router.demand(1, revision_id)
    await agent.expect(Start)
    replica_id = await router.ready()
    epoch = router.at[0]

    await all_of_it.signal(signal.SIGKILL)
    await router.lost.wait()
    await all_of_it.start()
    await router.connect(all_of_it.paths)
    await router.sees(lambda rows: router.at[0] > epoch, "a table of the next epoch")
    assert await router.ready() == replica_id, "adopted"
    router.demand(2, revision_id)
    await all_of_it.command(Status())
    router.demand(0, revision_id)
    drain = await agent.expect(Drain)  # and no Start before it
    assert (drain.replica_id, drain.epoch) == (replica_id, router.at[0])
    await router.zero()
    await all_of_it.written({replica_id: "stopped"})


async def test_kill_9_between_a_start_and_its_row(all_of_it: Installation) -> None:
    agent, router = all_of_it.agent, all_of_it.router
    agent.ready_seconds = None
    await router.connect(all_of_it.paths)
    revision_id = (await all_of_it.deploy())["revision_id"]
    router.demand(1, revision_id)
    start = await agent.expect(Start)
    await all_of_it.signal(signal.SIGKILL)
    await all_of_it.fetch("DELETE FROM replicas")  # as if it had never been written
    await all_of_it.start()
    await router.connect(all_of_it.paths)
    router.demand(1, revision_id)
    await all_of_it.written({start.replica_id: "starting"})
    agent.say(report(start.replica_id, revision_id=revision_id))
    assert await router.ready() == start.replica_id
    assert agent.received.empty() or not any(isinstance(frame, Start) for _, frame in list(agent.received._queue))  # type: ignore[attr-defined]


async def test_what_ended_while_nobody_looked_is_put_right(all_of_it: Installation) -> None:
    agent, router = all_of_it.agent, all_of_it.router
    await router.connect(all_of_it.paths)
    revision_id = (await all_of_it.deploy())["revision_id"]
    router.demand(1, revision_id)
    start = await agent.expect(Start)
    await router.ready()
    await all_of_it.signal(signal.SIGKILL)
    agent.replicas = {"rx": report("rx", revision_id="rev_unheard")}
    await all_of_it.start()
    await router.connect(all_of_it.paths)
    stop = await agent.expect(Stop)
    assert stop.replica_id == "rx"
    second = await agent.expect(Start)
    assert await router.ready() == second.replica_id
    await all_of_it.written({start.replica_id: "stopped", second.replica_id: "ready"})


async def test_a_failed_start_reaches_the_routers_and_backs_off(all_of_it: Installation) -> None:
    agent, router = all_of_it.agent, all_of_it.router
    agent.ready_seconds = None
    await router.connect(all_of_it.paths)
    revision_id = (await all_of_it.deploy())["revision_id"]
    router.demand(1, revision_id)
    start = await agent.expect(Start)
    agent.say(report(start.replica_id, "stopped", revision_id=revision_id, failed=True, reason="no such file"))
    await router.sees(lambda rows: rows["demo"].revisions[0].failure == "no such file", "the engine's reason")
    await agent.expect(Start)
    await router.sees(lambda rows: not rows["demo"].revisions[0].failure, "the next try")


async def test_usage_is_stored_once_and_told(all_of_it: Installation) -> None:
    agent, router = all_of_it.agent, all_of_it.router
    await router.connect(all_of_it.paths)
    revision_id = (await all_of_it.deploy())["revision_id"]
    router.demand(1, revision_id)
    start = await agent.expect(Start)
    await router.ready()
    listener, told = await asyncpg.connect(all_of_it.dsn), asyncio.Event()
    await listener.add_listener("journal", lambda *_: told.set())
    entries = tuple(
        UsageEntry(
            request_id=f"q{n}",
            replica_id=start.replica_id,
            input_tokens=n,
            cached_tokens=0,
            output_tokens=9,
            finish="stop",
        )
        for n in range(3)
    )
    bad = UsageEntry(
        request_id="q9", replica_id=start.replica_id, input_tokens=1, cached_tokens=0, output_tokens=1, finish="a\0b"
    )
    agent.say(UsageBatch(batch=1, entries=entries[:2]))
    assert (await agent.expect(UsageStored)).batch == 1
    agent.say(UsageBatch(batch=2, entries=(*entries, bad)))
    assert (await agent.expect(UsageStored)).batch == 2
    async with asyncio.timeout(60):
        await told.wait()
    await listener.close()
    rows = await all_of_it.fetch("SELECT * FROM engine_journal ORDER BY request_id")
    assert [(row["request_id"], row["org_id"], row["input_tokens"]) for row in rows] == [
        ("q0", "default", 0),
        ("q1", "default", 1),
        ("q2", "default", 2),
    ]


async def test_remove_and_deploy_again(all_of_it: Installation) -> None:
    agent, router = all_of_it.agent, all_of_it.router
    await router.connect(all_of_it.paths)
    first = await all_of_it.deploy(min_replicas=1)
    start = await agent.expect(Start)
    await router.ready()
    await all_of_it.fetch(KEYS_AND_PRICES[0], first["endpoint_id"])
    await all_of_it.fetch(KEYS_AND_PRICES[1], first["endpoint_id"])
    assert await all_of_it.price_in_force(first["endpoint_id"]) == "p-1"
    gone = await all_of_it.command(Remove(org_id="default", name="demo"))
    assert (gone["revoked_keys"], gone["prices_ended"]) == (2, True) and gone["revoked_key"] in ("k1", "k2")
    keys = await all_of_it.fetch(
        "SELECT key_id, revoked_at > now() - interval '1 hour' AS lately FROM keys ORDER BY key_id"
    )
    assert [(row["key_id"], row["lately"]) for row in keys] == [("k0", False), ("k1", True), ("k2", True)]
    assert await all_of_it.price_in_force(first["endpoint_id"]) == "default"
    assert await all_of_it.prices_at(first["endpoint_id"], -2.0, -0.5, 0.0, 2.0) == [
        "default",
        "p-1",
        "default",
        "default",
    ]
    assert "demo" not in router.rows
    assert (await agent.expect(Drain)).replica_id == start.replica_id
    with pytest.raises(ActivatorError, match="there is no endpoint"):
        await all_of_it.command(Remove(org_id="default", name="demo"))
    # as one made while it was being removed
    await all_of_it.fetch("UPDATE keys SET revoked_at = NULL WHERE key_id = 'k1'")
    second = await all_of_it.deploy()
    assert (second["endpoint_id"], second["number"]) == (first["endpoint_id"], 2)
    assert (second["revoked_keys"], second["prices_ended"]) == (1, False), (
        "a name that comes back has none of its old keys"
    )
    assert await all_of_it.fetch("SELECT FROM keys WHERE revoked_at IS NULL") == []
    with pytest.raises(ActivatorError, match="taken by another"):
        await all_of_it.deploy(org_id="other")
    with pytest.raises(ActivatorError, match="no organisation"):
        await all_of_it.deploy(org_id="other", name="other")
    with pytest.raises(ActivatorError, match="max_replicas"):
        await all_of_it.deploy(max_replicas=0)


async def test_a_crash_is_replaced_and_an_agents_death_too(all_of_it: Installation) -> None:
    agent, router = all_of_it.agent, all_of_it.router
    await router.connect(all_of_it.paths)
    revision_id = (await all_of_it.deploy())["revision_id"]
    router.demand(1, revision_id)
    first = await agent.expect(Start)
    await router.ready()
    agent.say(report(first.replica_id, "stopped", revision_id=revision_id, failed=True, reason="killed"))
    second = await agent.expect(Start)
    await router.sees(
        lambda rows: [r.replica_id for r in rows["demo"].revisions[0].replicas] == [second.replica_id], "the second"
    )

    assert all_of_it.node
    all_of_it.node.kill()
    await all_of_it.node.wait()
    await agent.close()
    await router.sees(lambda rows: not rows["demo"].revisions[0].replicas, "its replicas are believed gone")
    assert not router.rows["demo"].revisions[0].failure


async def test_a_term_ends_replicas_and_agent(all_of_it: Installation) -> None:
    agent, router = all_of_it.agent, all_of_it.router
    await router.connect(all_of_it.paths)
    revision_id = (await all_of_it.deploy(min_replicas=1))["revision_id"]
    start = await agent.expect(Start)
    await router.ready()
    assert router.rows["demo"].revisions[0].revision_id == revision_id
    assert await all_of_it.signal(signal.SIGTERM) == 0
    assert (await agent.expect(Drain)).replica_id == start.replica_id
    assert await all_of_it.states() == {start.replica_id: "stopped"}
    assert all_of_it.node
    async with asyncio.timeout(60):
        assert await all_of_it.node.wait() == -signal.SIGTERM


async def test_a_second_activator_waits_and_follows_at_once(all_of_it: Installation) -> None:
    router = all_of_it.router
    await router.connect(all_of_it.paths)
    revision_id = (await all_of_it.deploy(min_replicas=1))["revision_id"]
    replica_id = await router.ready()
    first, epoch = all_of_it.activator, router.at[0]
    assert first
    await all_of_it.start()
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    while not (await all_of_it.fetch(waiting))[0][0]:
        await asyncio.sleep(0.02)
    first.kill()
    await first.wait()
    await router.lost.wait()
    await router.connect(all_of_it.paths)
    await router.sees(lambda rows: router.at[0] > epoch, "the second leads")
    assert await router.ready() == replica_id
    assert router.rows["demo"].revisions[0].revision_id == revision_id


async def test_postgres_away_stops_commands_and_nothing_else(all_of_it: Installation) -> None:
    agent, router = all_of_it.agent, all_of_it.router
    await router.connect(all_of_it.paths)
    revision_id = (await all_of_it.deploy())["revision_id"]
    epoch = router.at[0]
    control = await asyncpg.connect(all_of_it.dsn, database="template1")
    await control.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS false")
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name LIKE 'pilotlight%'"
    try:
        await control.execute(end)
        router.demand(1, revision_id)
        start = await agent.expect(Start)
        replica_id = await router.ready()
        assert start.replica_id == replica_id
        with pytest.raises(ActivatorError, match="Postgres does not answer"):
            await all_of_it.deploy(slots=8)
    finally:
        await control.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS true")
        await control.close()
    await router.sees(lambda rows: router.at[0] == epoch + 1, "the same activator leads on under a new epoch")
    await all_of_it.written({replica_id: "ready"})
    assert (await all_of_it.deploy(slots=8))["number"] == 2


@asynccontextmanager
async def away(dsn: str) -> AsyncIterator[None]:
    """Postgres takes no connection, and has none."""
    control = await asyncpg.connect(dsn, database="template1")
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name LIKE 'pilotlight%'"
    try:
        await control.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS false")
        await control.execute(end)
        yield
    finally:
        await control.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS true")
        await control.close()


async def test_an_activator_that_starts_without_postgres_wakes_drains_and_catches_up(all_of_it: Installation) -> None:
    agent, router = all_of_it.agent, all_of_it.router
    await router.connect(all_of_it.paths)
    revision_id = (await all_of_it.deploy(idle_timeout_seconds=0.3))["revision_id"]
    while kept.read(all_of_it.paths.catalogue) is None or "demo" not in [
        e.name for e in kept.read(all_of_it.paths.catalogue) or ()
    ]:
        await asyncio.sleep(0.01)
    epochs = [router.at[0]]
    async with away(all_of_it.dsn):
        for _ in range(2):  # and again
            await all_of_it.signal(signal.SIGKILL)
            await router.lost.wait()
            await all_of_it.start()
            await router.connect(all_of_it.paths)
            await router.sees(
                lambda rows: router.at[0] > epochs[-1] and "demo" in rows,
                "one leads without Postgres, under a higher epoch",
            )
            epochs.append(router.at[0])
            router.demand(1, revision_id)
            replica_id = (await agent.expect(Start)).replica_id
            assert await router.ready() == replica_id
            router.demand(0, revision_id)
            await router.zero()
            assert (await agent.expect(Drain)).replica_id == replica_id
            with pytest.raises(ActivatorError, match="Postgres does not answer"):
                await all_of_it.deploy(slots=8)
        router.demand(1, revision_id)
        await agent.expect(Start)
        last = await router.ready()
    await router.sees(
        lambda rows: router.at[0] == epochs[-1] + 1, "it takes Postgres' lock, and an epoch above its own"
    )
    while (await all_of_it.states()).get(last) != "ready":
        await asyncio.sleep(0.02)
    assert list((await all_of_it.states()).values()).count("stopped") >= 1  # what was written meanwhile waited for this
    assert (await all_of_it.deploy(slots=8))["number"] == 2
    (led,) = await all_of_it.fetch("SELECT epoch FROM leadership")
    assert led["epoch"] == router.at[0] == epoch_file.read(all_of_it.paths.epoch)


async def test_what_postgres_has_otherwise_counts_once_it_is_back(all_of_it: Installation) -> None:
    """A command was committed, and its leader died before it wrote the catalogue file."""
    router = all_of_it.router
    await router.connect(all_of_it.paths)
    await all_of_it.deploy(name="gone")
    await all_of_it.deploy()
    while {e.name for e in kept.read(all_of_it.paths.catalogue) or ()} != {"demo", "gone"}:
        await asyncio.sleep(0.01)
    before = all_of_it.paths.catalogue.read_bytes()
    await all_of_it.deploy(slots=8)
    await all_of_it.command(Remove(org_id="default", name="gone"))
    async with away(all_of_it.dsn):
        await all_of_it.signal(signal.SIGKILL)
        await router.lost.wait()
        all_of_it.paths.catalogue.write_bytes(before)
        await all_of_it.start()
        await router.connect(all_of_it.paths)
        await router.sees(lambda rows: {"demo", "gone"} == set(rows), "what the file has is served")
    await router.sees(lambda rows: set(rows) == {"demo"}, "what Postgres has is served")
    while [e.name for e in kept.read(all_of_it.paths.catalogue) or () if not e.removed] != ["demo"]:
        await asyncio.sleep(0.01)
    (kept_demo,) = [e for e in kept.read(all_of_it.paths.catalogue) or () if e.name == "demo"]
    assert kept_demo.newest is not None and kept_demo.newest.slots == 8


async def test_one_leads_without_postgres_and_ends_where_another_has_led(all_of_it: Installation) -> None:
    router = all_of_it.router
    await router.connect(all_of_it.paths)
    await all_of_it.deploy()
    while not kept.read(all_of_it.paths.catalogue):
        await asyncio.sleep(0.01)
    async with away(all_of_it.dsn):
        await all_of_it.signal(signal.SIGKILL)
        await router.lost.wait()
        await all_of_it.start()
        await router.connect(all_of_it.paths)
        await router.sees(lambda rows: "demo" in rows, "one leads without Postgres")
        second = MachineLock(lock=all_of_it.paths.run / "activator.lock", epochs=all_of_it.paths.epoch, may=True)
        assert second.lead(0) == 0, "of two on one machine one leads"
        assert all_of_it.activator
        all_of_it.activator.send_signal(signal.SIGSTOP)  # so that the other one comes first
        control = await asyncpg.connect(all_of_it.dsn, database="template1")
        await control.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS true")
        elsewhere = await asyncpg.connect(all_of_it.dsn)
        await elsewhere.execute("UPDATE leadership SET epoch = epoch + 50")  # as one on another machine would have
        await elsewhere.close()
        await control.close()
        all_of_it.activator.send_signal(signal.SIGCONT)
        async with asyncio.timeout(60):
            assert await all_of_it.activator.wait() == 75


async def test_leadership_lost_ends_the_activator(all_of_it: Installation) -> None:
    await all_of_it.router.connect(all_of_it.paths)
    await all_of_it.deploy()
    control = await asyncpg.connect(all_of_it.dsn)
    await control.execute("UPDATE leadership SET epoch = epoch + 5")  # as another leader would have
    await control.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pilotlight activator lease'"
    )
    await control.close()
    assert all_of_it.activator
    async with asyncio.timeout(60):
        assert await all_of_it.activator.wait() == 75


async def test_the_lease_is_one_at_a_time(state: tuple[Path, str]) -> None:
    _, dsn = state
    first, second = Lease(dsn), Lease(dsn)
    epoch = await first.acquire()
    waiting = asyncio.ensure_future(second.acquire())
    keeping: asyncio.Task[None] = asyncio.ensure_future(first.keep(lambda epoch: asyncio.sleep(0)))
    first.raise_above(epoch + 10)
    while first.epoch == epoch:
        await asyncio.sleep(0.01)
    assert first.epoch == epoch + 11 and not waiting.done()
    assert first._connection
    await someone_waits(dsn)  # else the first, which comes again at once, may be before it
    await asyncpg_end(dsn, first._connection.get_server_pid())
    assert await waiting == epoch + 12
    with pytest.raises(LeadershipLost):
        await keeping
    await second.give_up()


async def someone_waits(dsn: str) -> None:
    """Until a session stands in line for the lease."""
    connection = await asyncpg.connect(dsn)
    while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
        await asyncio.sleep(0.01)
    await connection.close()


async def asyncpg_end(dsn: str, pid: int) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("SELECT pg_terminate_backend($1)", pid)
    await connection.close()


# The launcher

AGENT = """
import asyncio, sys
from tests.fakes_activator import FakeAgent
async def main():
    await FakeAgent().serve(sys.argv[1])
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture
def short() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pl-lau-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def launcher(folder: Path, *command: str) -> ProcessLauncher:
    address = f"unix:{folder}/agent.sock"
    return ProcessLauncher(
        address=address,
        identity_file=folder / "agent.id",
        log_file=folder / "agent.log",
        environ=os.environ,
        command=command or (sys.executable, "-c", AGENT, address),
    )


async def test_the_launcher_starts_one_agent_and_its_successor_finds_it(short: Path) -> None:
    first = launcher(short)
    stream, said = await first.reach()
    assert said.node_id == "n1" and not await first.is_dead()
    pid = int((short / "agent.id").read_text().split()[0])
    assert os.getsid(pid) == pid != os.getsid(0), "in a session of its own"
    stream.close()
    second = launcher(short)
    stream, _ = await second.reach()
    assert int((short / "agent.id").read_text().split()[0]) == pid
    os.kill(pid, signal.SIGKILL)
    assert await stream.receive() is None and await second.is_dead()
    stream, _ = await second.reach()
    other = int((short / "agent.id").read_text().split()[0])
    assert other != pid
    await second.end()
    assert start_time(other) is None and not (short / "agent.id").exists()


async def test_the_launcher_starts_no_second_agent_while_the_first_is_on_its_way(short: Path) -> None:
    slow = launcher(
        short,
        sys.executable,
        "-c",
        f"import time; time.sleep(0.5)\nimport sys; sys.argv[1:] = ['unix:{short}/agent.sock']\n{AGENT}",
    )
    starting = asyncio.ensure_future(slow.reach())
    while not (short / "agent.id").exists():
        await asyncio.sleep(0.01)
    pid = (short / "agent.id").read_text()
    starting.cancel()  # the activator is killed
    with pytest.raises(asyncio.CancelledError):
        await starting
    successor = launcher(short, "/bin/false")
    await successor.reach()
    assert (short / "agent.id").read_text() == pid
    await successor.end()


async def test_the_launcher_tries_again_when_an_agent_ends_at_once(short: Path) -> None:
    once = f"import os, sys\nif not os.path.exists('{short}/once'): open('{short}/once', 'w').close(); sys.exit('not yet')\n"
    hopeful = launcher(short, sys.executable, "-c", f"{once}sys.argv[1:] = ['unix:{short}/agent.sock']\n{AGENT}")
    async with asyncio.timeout(60):
        await hopeful.reach()
    assert "not yet" in (short / "agent.log").read_text()
    await hopeful.end()


async def test_the_launcher_knows_an_agent_started_by_hand(short: Path) -> None:
    by_hand = await asyncio.create_subprocess_exec(sys.executable, "-c", AGENT, f"unix:{short}/agent.sock")
    while not (short / "agent.sock").exists():
        await asyncio.sleep(0.01)
    found = launcher(short, "/bin/false")
    await found.reach()
    await found.end()
    assert await by_hand.wait() == -signal.SIGTERM


async def test_parked_over_a_crash_and_a_wrong_answer_on_record(all_of_it: Installation) -> None:
    agent, router = all_of_it.agent, all_of_it.router
    await router.connect(all_of_it.paths)
    revision_id = (await all_of_it.deploy(zero="parked", idle_timeout_seconds=0.3))["revision_id"]
    router.demand(1, revision_id)
    replica_id = (await agent.expect(Start)).replica_id
    await router.ready()
    router.demand(0, revision_id)
    assert (await agent.expect(Park)).replica_id == replica_id
    await all_of_it.written({replica_id: "parked"})
    await all_of_it.signal(signal.SIGKILL)
    await router.lost.wait()
    await all_of_it.start()
    await router.connect(all_of_it.paths)
    router.demand(1, revision_id)
    unpark = await agent.expect(Unpark)
    assert (unpark.replica_id, unpark.climb) == (replica_id, 1)
    assert await router.ready() == replica_id
    await all_of_it.written({replica_id: "ready"})
    agent.ready_seconds = None
    agent.say(report(replica_id, "stopped", revision_id=revision_id, climb=1, failed=True, reason="killed"))
    first = await agent.expect(Start)
    agent.say(
        report(
            first.replica_id, "stopped", revision_id=revision_id, failed=True, mismatch=True, reason="said [1], not [2]"
        )
    )
    second = await agent.expect(Start)
    assert (first.plain, first.parks, second.plain) == (False, True, True)
    await all_of_it.written({replica_id: "stopped", first.replica_id: "stopped", second.replica_id: "starting"})
    died, event = await all_of_it.fetch("SELECT * FROM events ORDER BY event_id")
    assert (died["kind"], died["replica_id"]) == ("died", replica_id) and "killed" in died["text"]
    assert (event["kind"], event["revision_id"], event["replica_id"], event["node_id"]) == (
        "canary_mismatch", revision_id, first.replica_id, "n1"
    )  # fmt: skip
    assert "said [1], not [2]" in event["text"] and "plain is next" in event["text"]
    (known,) = await all_of_it.fetch("SELECT zero FROM revisions")
    assert known["zero"] == "parked"
    (mark,) = await all_of_it.fetch("SELECT *, until > now() + interval '59 min' AS lasts FROM bad_rungs")
    assert (mark["revision_id"], mark["node_id"], mark["rung"], mark["org_id"], mark["lasts"]) == (
        revision_id,
        "n1",
        "standby",
        "default",
        True,
    )
    await all_of_it.signal(signal.SIGKILL)
    await router.lost.wait()
    await all_of_it.start()
    await router.connect(all_of_it.paths)
    (shown,) = (await all_of_it.command(Status()))["endpoints"]
    assert shown["revisions"][0]["bad_rungs"] == [["n1", "standby"]]
    agent.say(report(second.replica_id, "ready", revision_id=revision_id))
    await all_of_it.written({replica_id: "stopped", first.replica_id: "stopped", second.replica_id: "ready"})


async def test_frames_that_are_none_cost_only_their_sender(all_of_it: Installation) -> None:
    await all_of_it.router.connect(all_of_it.paths)
    await all_of_it.deploy()
    kind, path, _ = frames.split(all_of_it.paths.address("activator"))
    assert kind == "unix"
    for nonsense in (b"\n", b"{}\n", b'{"kind":"demand"}\n', b"\xff" * 100 + b"\n", b'{"kind":"router"'):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(nonsense)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
    assert (await all_of_it.command(Status()))["routers"] == 1


async def test_target_concurrency_decides_how_many_and_memory_is_remembered(all_of_it: Installation) -> None:
    agent, router = all_of_it.agent, all_of_it.router
    await router.connect(all_of_it.paths)
    one = await all_of_it.deploy(target_concurrency=2, max_replicas=3, weight_bytes=1000, idle_timeout_seconds=0.3)
    other = await all_of_it.deploy(name="other", idle_timeout_seconds=0.3)
    router.demand(5, one["revision_id"])
    starts = [await agent.expect(Start) for _ in range(3)]
    assert {start.revision_id for start in starts} == {one["revision_id"]} and starts[0].slots == 4
    router.demand(4, other["revision_id"])
    assert (await agent.expect(Start)).revision_id == other["revision_id"], "four fit into one of four slots"
    await router.sees(
        lambda rows: sum(len(row.replicas) for name in ("demo", "other") for row in rows[name].revisions) == 4,
        "four are ready",
    )
    for start in starts:
        agent.say(
            report(
                start.replica_id,
                "ready",
                revision_id=start.revision_id,
                private_bytes=300 << 20,
                kv_cache_bytes=64 << 20,
                memory_bytes=364 << 20,
            )
        )
    router.demand(0, one["revision_id"])
    router.demand(0, other["revision_id"])
    await router.zero()
    await router.zero("other")
    rows = await all_of_it.fetch("SELECT target_concurrency, weight_bytes FROM revisions ORDER BY weight_bytes")
    assert [tuple(row) for row in rows] == [(0, 0), (2, 1000)]
    assert await all_of_it.signal(signal.SIGKILL) == -signal.SIGKILL
    await all_of_it.start()
    status = await all_of_it.command(Status())
    known = {endpoint["name"]: endpoint["revisions"][0] for endpoint in status["endpoints"]}
    assert (known["demo"]["target_concurrency"], known["demo"]["needs_bytes"]) == (2, 364 << 20)
    assert (known["other"]["target_concurrency"], known["other"]["needs_bytes"]) == (4, 0)


async def test_a_deploy_waits_until_it_serves_and_leaves_what_serves_when_it_fails(all_of_it: Installation) -> None:
    agent, router = all_of_it.agent, all_of_it.router
    await router.connect(all_of_it.paths)
    first = await all_of_it.deploy(by="me", cors_origins=("https://app.example.org",))
    router.demand(1, first["revision_id"])
    await router.ready()
    await agent.expect(Start)
    agent.ready_seconds = None
    second = await all_of_it.deploy(slots=8)
    assert second["pending"] and router.rows["demo"].route == ((first["revision_id"], 100),)
    started = await agent.expect(Start)
    await all_of_it.signal(signal.SIGKILL)
    await all_of_it.start()
    await router.connect(all_of_it.paths)
    async with asyncio.timeout(60):
        while not any(node["connected"] for node in (await all_of_it.command(Status()))["nodes"]):
            await asyncio.sleep(0.02)
    agent.say(report(started.replica_id, "stopped", revision_id=second["revision_id"], reason="no such argument"))
    await all_of_it.became(second["revision_id"], ("failed", "no such argument"))
    assert router.rows["demo"].route == ((first["revision_id"], 100),)
    agent.ready_seconds = 0.01
    third = await all_of_it.deploy(slots=16)
    await router.sees(lambda rows: rows["demo"].route == ((third["revision_id"], 100),), "the third revision serves")
    back = await all_of_it.command(Rollback(org_id="default", name="demo"))
    assert back["number"] == 4 and back["pending"]
    await router.sees(
        lambda rows: rows["demo"].route == ((back["revision_id"], 100),), "what the first was serves again"
    )
    sql = Path(admin.__file__).parent / "sql"
    rows = await all_of_it.fetch(read_sql(sql, "list_revisions"), first["endpoint_id"], "default", 10)
    assert [(row["number"], row["outcome"], row["slots"], row["created_by"]) for row in rows] == [
        (4, "proved", 4, ""), (3, "proved", 16, ""), (2, "failed", 8, ""), (1, "proved", 4, "me"),
    ]  # fmt: skip
    (row,) = await all_of_it.fetch(read_sql(sql, "list_endpoints"), "demo")
    assert (row["number"], row["next"], row["last_failed"], row["finish_seconds"]) == (4, None, None, 3600.0)
    assert router.rows["demo"].cors_origins == tuple(row["cors_origins"]) == ("https://app.example.org",), (
        "also after a restart"
    )
    events = await all_of_it.fetch("SELECT kind FROM events ORDER BY event_id")
    assert [event["kind"] for event in events] == ["deploy_failed", "deployed", "deployed"]


async def test_what_cannot_work_is_refused_by_name_before_anything_moves(all_of_it: Installation) -> None:
    all_of_it.agent.says_of_arguments = ""
    await all_of_it.router.connect(all_of_it.paths)
    first = await all_of_it.deploy()
    assert first["unchecked"] == "", "a node has looked at it"
    all_of_it.agent.says_of_arguments = "engine argument x: vLLM 0 has none of that name"
    with pytest.raises(
        ActivatorError, match="vLLM refuses its arguments: engine argument x: vLLM 0 has none of that name"
    ):
        await all_of_it.deploy(engine_args={"x": 1})
    with pytest.raises(ActivatorError, match="engine argument port"):
        await all_of_it.deploy(engine_args={"port": 1})
    assert len(await all_of_it.fetch("SELECT * FROM revisions")) == 1
    all_of_it.agent.says_of_arguments = ""
    second = await all_of_it.deploy(engine_args={"x": 1})
    assert (second["number"], second["unchecked"]) == (2, "")


class Torn:
    """A pool whose connections commit, and are gone before they say so."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self.pool, self.tearing = pool, False

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        async with self.pool.acquire() as connection:
            yield connection
        if (
            self.tearing
            and await self.pool.fetchval("SELECT count(*) FROM endpoints WHERE removed_at IS NULL") != self.before
        ):
            raise ConnectionResetError("gone after COMMIT")

    async def tear(self) -> None:
        """From now on: every command that changes whether there is an endpoint."""
        self.before = await self.pool.fetchval("SELECT count(*) FROM endpoints WHERE removed_at IS NULL")
        self.tearing = True


async def test_a_command_whose_answer_was_lost_heals_by_itself(state: tuple[Path, str]) -> None:
    async with asyncpg.create_pool(state[1], min_size=1, max_size=2) as pool:
        await pool.execute("TRUNCATE endpoints, revisions, replicas CASCADE")
        inbox: asyncio.Queue[Any] = asyncio.Queue()
        epoch = await pool.fetchval("SELECT epoch FROM leadership")
        torn = Torn(pool)
        commands = Commands(pool=torn, inbox=inbox, epoch=lambda: epoch)
        unsure = asyncio.ensure_future(commands.keep_sure())
        told: asyncio.Queue[EndpointStored] = asyncio.Queue()

        async def listen() -> None:
            while True:
                match await inbox.get():
                    case ArgumentsAsked(reply=reply):
                        reply(Done(ok=True))
                    case EndpointStored() as stored:
                        told.put_nowait(stored)

        listening = asyncio.ensure_future(listen())
        await torn.tear()
        done = await commands.execute(Deploy(org_id="default", name="demo", digest=DIGEST))
        assert not done.ok and "is not known yet" in done.message and told.empty()
        torn.tearing = False
        async with asyncio.timeout(60):
            stored = await told.get()
        assert stored.endpoint.name == "demo" and stored.endpoint.route
        await torn.tear()
        done = await commands.execute(Remove(org_id="default", name="demo"))
        assert not done.ok
        torn.tearing = False
        async with asyncio.timeout(60):
            stored = await told.get()
        assert stored.endpoint.removed, "though a second DELETE finds nothing"
        assert not (await commands.execute(Remove(org_id="default", name="demo"))).ok
        unsure.cancel()
        listening.cancel()
