"""The policy: pushed when it changes, kept on disk, served from there while Postgres is away; never an empty one by
mistake.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pilotlight.frames import connect, serve
from router.ledger.client import key_is_known
from router.ledger.policy import LiveKeys, Policies
from router.ledger.server import LedgerServer
from router.ledger.wire import Applied, FromLedger, KeyRow, Policy, Spooled, ToLedger, WorkerHello
from tests.router_world import nobody

KEY = KeyRow(hash="00", key_id="key_1", org_id="default", endpoint_id="ep", scope="inference")


class Keys:
    """Postgres' keys; away while `away` is set."""

    def __init__(self, *keys: KeyRow, away: bool = False) -> None:
        self.keys, self.away = keys, away
        self.ahead = 0.0  # seconds, Postgres' clock

    async def load(self) -> LiveKeys:
        if self.away:
            raise ConnectionRefusedError
        return LiveKeys(self.keys, self.ahead)


def test_a_change_is_published_with_a_higher_version_and_kept(tmp_path: Path) -> None:
    async def scene() -> None:
        keys = Keys(KEY)
        policies = Policies(file=tmp_path / "policy.json", load=keys.load)
        task = asyncio.create_task(policies.run())
        first = await asyncio.wait_for(policies.newer_than(0), 2)
        keys.keys = ()
        policies.invalidate()
        second = await asyncio.wait_for(policies.newer_than(first.version), 2)
        task.cancel()
        assert first.keys == (KEY,) and second.keys == () and second.version > first.version
        assert Policy.model_validate_json((tmp_path / "policy.json").read_bytes()) == second
        assert (tmp_path / "policy.json").stat().st_mode & 0o777 == 0o600

    asyncio.run(scene())


def test_without_postgres_the_kept_policy_is_served_until_it_is_back(tmp_path: Path) -> None:
    async def scene() -> None:
        kept = Policy(version=2**60, keys=(KEY,))
        (tmp_path / "policy.json").write_text(kept.model_dump_json())
        keys = Keys(away=True)
        policies = Policies(file=tmp_path / "policy.json", load=keys.load)
        task = asyncio.create_task(policies.run())
        assert await asyncio.wait_for(policies.newer_than(0), 2) == kept
        keys.away = False
        assert (await asyncio.wait_for(policies.newer_than(kept.version), 2)).version == 2**60 + 1
        task.cancel()

    asyncio.run(scene())


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"kind":"policy"}'])
def test_with_neither_postgres_nor_a_kept_policy_none_is_given(tmp_path: Path, content: bytes | None) -> None:
    async def scene() -> None:
        if content is not None:
            (tmp_path / "policy.json").write_bytes(content)
        policies = Policies(file=tmp_path / "policy.json", load=Keys(away=True).load)
        assert policies.current is None
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(policies.newer_than(0), 0.01)

    asyncio.run(scene())


def test_a_worker_gets_the_policy_at_once_and_is_heard(tmp_path: Path) -> None:
    async def scene() -> None:
        keys, heard = Keys(KEY), asyncio.Queue[str]()
        policies, workers = Policies(file=tmp_path / "policy.json", load=keys.load), nobody()
        task = asyncio.create_task(policies.run())
        greeter = LedgerServer(policies=policies, workers=workers, spooled=heard.put_nowait)
        server = await serve(f"unix:{tmp_path}/l.sock", ToLedger, greeter.greet)
        stream = await connect(f"unix:{tmp_path}/l.sock", FromLedger)
        stream.send(WorkerHello(worker_id="w", pid=1), Spooled(file="w.1.jsonl", bytes=10))
        policy = await asyncio.wait_for(stream.receive(), 2)
        assert isinstance(policy, Policy) and policy.keys == (KEY,)
        assert await asyncio.wait_for(heard.get(), 2) == "w.1.jsonl"
        assert workers.dead(["w"], now=1e9) == set()
        keys.keys = ()
        policies.invalidate()
        changed = await asyncio.wait_for(stream.receive(), 2)
        assert isinstance(changed, Policy) and changed.keys == ()
        stream.close()
        server.close()
        task.cancel()

    asyncio.run(scene())


def test_who_does_not_say_hello_is_let_go(tmp_path: Path) -> None:
    async def scene() -> None:
        policies = Policies(file=tmp_path / "policy.json", load=Keys().load)
        greeter = LedgerServer(policies=policies, workers=nobody(), spooled=lambda file: None)
        server = await serve(f"unix:{tmp_path}/l.sock", ToLedger, greeter.greet)
        stream = await connect(f"unix:{tmp_path}/l.sock", FromLedger)
        stream.send(Spooled(file="w.1.jsonl", bytes=10))
        assert await asyncio.wait_for(stream.receive(), 2) is None
        server.close()

    asyncio.run(scene())


def test_the_clock_of_postgres_is_told_when_it_differs_anew(tmp_path: Path) -> None:
    async def scene() -> None:
        keys = Keys(KEY)
        policies = Policies(file=tmp_path / "policy.json", load=keys.load)
        task = asyncio.create_task(policies.run())
        first = await asyncio.wait_for(policies.newer_than(0), 2)
        keys.ahead = 0.2  # no news: two readings of one clock
        await policies.settled("key_1", live=True)
        assert policies.current == first
        keys.ahead = 90.0
        policies.invalidate()
        assert (await asyncio.wait_for(policies.newer_than(first.version), 2)).ahead_seconds == 90.0
        task.cancel()

    asyncio.run(scene())


def test_who_made_a_key_hears_when_every_worker_serves_by_it(tmp_path: Path) -> None:
    async def scene() -> None:
        keys, address = Keys(), f"unix:{tmp_path}/l.sock"
        policies = Policies(file=tmp_path / "policy.json", load=keys.load)
        task = asyncio.create_task(policies.run())
        server = await serve(
            address, ToLedger, LedgerServer(policies=policies, workers=nobody(), spooled=lambda file: None).greet
        )
        await policies.newer_than(0)
        keys.keys = (KEY,)
        assert await key_is_known(address, "key_1", live=True, seconds=2), (
            "nobody is connected: whoever comes begins with it"
        )
        assert not await key_is_known(address, "key_2", live=True, seconds=0.01), "Postgres has no such key"
        slow, quick = await connect(address, FromLedger), await connect(address, FromLedger)
        for stream in (slow, quick):
            stream.send(WorkerHello(worker_id="w", pid=1))
            policy = await asyncio.wait_for(stream.receive(), 2)
            assert isinstance(policy, Policy)
            version = policy.version
        quick.send(Applied(version=version))
        assert not await key_is_known(address, "key_1", live=True, seconds=0.05), "one has not said so"
        asked = asyncio.create_task(key_is_known(address, "key_1", live=True, seconds=5))
        slow.send(Applied(version=version))
        assert await asked
        keys.keys = ()
        asked = asyncio.create_task(key_is_known(address, "key_1", live=False, seconds=5))
        policy = await asyncio.wait_for(quick.receive(), 2)
        assert isinstance(policy, Policy) and policy.keys == ()
        quick.send(Applied(version=policy.version))
        await asyncio.sleep(0)
        assert not asked.done()
        slow.close()  # it died: nothing is answered by it any more
        assert await asked
        server.close()
        assert not await key_is_known(f"unix:{tmp_path}/none.sock", "key_1", live=True, seconds=1), "the ledger is away"
        task.cancel()

    asyncio.run(scene())
