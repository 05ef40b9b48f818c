"""A key change costs what one key costs: only it is read, told and taken in, however many there are; nothing is lost on
the way.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pilotlight.frames import FrameStream, connect, serve
from router.admission.auth import Keys as WorkersKeys
from router.ledger.keeping import SHORT
from router.ledger.policy import CHANGES_KEPT, LiveKeys, Policies
from router.ledger.server import PART_KEYS, LedgerServer
from router.ledger.wire import Applied, FromLedger, KeyRow, Policy, PolicyChange, PolicyPart, ToLedger, WorkerHello
from tests.router_world import PEPPER, nobody, until


def key(number: int, *, endpoint: str = "ep_1", expires_at: float = 0.0) -> KeyRow:
    return KeyRow(
        hash=f"{number:064x}",
        key_id=f"key_{number}",
        org_id="default",
        endpoint_id=endpoint,
        scope="inference",
        expires_at=expires_at,
    )


class Table:
    """Postgres' keys; `asked` is what was read: names, or "all"."""

    def __init__(self, *keys: KeyRow) -> None:
        self.keys = {row.key_id: row for row in keys}
        self.asked: list[Any] = []
        self.ahead = 0.0
        self.away = False

    async def load(self) -> LiveKeys:
        self._here()
        self.asked.append("all")
        return LiveKeys(tuple(self.keys.values()), self.ahead)

    async def find(self, ids: Sequence[str]) -> LiveKeys:
        self._here()
        self.asked.append(set(ids))
        return LiveKeys(
            tuple(row for row in self.keys.values() if row.key_id in ids or row.endpoint_id in ids), self.ahead
        )

    async def mark(self) -> str:
        return str(sorted(row.model_dump_json() for row in self.keys.values()))

    def _here(self) -> None:
        if self.away:
            raise ConnectionRefusedError


class Site:
    """A ledger's policies and socket, and workers that follow it."""

    def __init__(self, folder: Path, table: Table) -> None:
        self.address, self.table = f"unix:{folder}/l.sock", table
        self.policies = Policies(file=folder / "policy.json", load=table.load, find=table.find, mark=table.mark)
        self.tasks: list[asyncio.Task[Any]] = []

    async def start(self) -> Site:
        self.tasks.append(asyncio.create_task(self.policies.run()))
        self.server = await serve(
            self.address, ToLedger, LedgerServer(policies=self.policies, workers=nobody(), spooled=_ignore).greet
        )
        await self.policies.newer_than(0)
        return self

    def stop(self) -> None:
        self.server.close()
        for task in self.tasks:
            task.cancel()

    async def worker(self, *, takes_changes: bool = True) -> tuple[WorkersKeys, list[Any], FrameStream[Any]]:
        keys, frames = WorkersKeys(pepper=PEPPER, wall=time.time), list[Any]()
        stream = await connect(self.address, FromLedger)
        stream.send(WorkerHello(worker_id="w", pid=1, takes_changes=takes_changes))

        async def follow() -> None:
            async for frame in stream:
                frames.append(frame)
                if isinstance(frame, Policy):
                    keys.replace(frame)
                elif isinstance(frame, PolicyPart):
                    keys.add(frame)
                elif isinstance(frame, PolicyChange):
                    assert keys.change(frame), "a change that does not follow"
                stream.send(Applied(version=keys.version))

        self.tasks.append(asyncio.create_task(follow()))
        await until(lambda: keys.version == self.policies.version)
        return keys, frames, stream


def _ignore(file: str) -> None: ...


def known(keys: WorkersKeys) -> set[str]:
    return {tenant.key_id for tenant in (keys._tenants or {}).values()}


def test_one_key_is_read_told_and_taken_in_alone(tmp_path: Path) -> None:
    async def scene() -> None:
        site = await Site(tmp_path, Table(*map(key, range(2 * PART_KEYS + 1)))).start()
        keys, frames, _ = await site.worker()
        assert [len(frame.keys) for frame in frames] == [PART_KEYS, PART_KEYS, 1]
        site.table.keys["key_900"] = key(900)
        site.policies.invalidate("key_900")
        await until(lambda: "key_900" in known(keys))
        del site.table.keys["key_3"]
        site.policies.invalidate("key_3")
        site.policies.invalidate("price_1")
        await until(lambda: "key_3" not in known(keys))
        changes = frames[3:]
        assert [(len(change.put), len(change.gone)) for change in changes] == [(1, 0), (0, 1)]
        assert site.table.asked == ["all", {"key_900"}, {"key_3"}]
        site.stop()

    asyncio.run(scene())


def test_an_endpoint_that_ends_takes_all_its_keys_with_it(tmp_path: Path) -> None:
    async def scene() -> None:
        site = await Site(
            tmp_path, Table(key(1, endpoint="ep_a"), key(2, endpoint="ep_a"), key(3, endpoint="ep_b"))
        ).start()
        keys, _, _ = await site.worker()
        site.table.keys = {"key_3": key(3, endpoint="ep_b")}
        site.policies.invalidate("ep_a")
        await until(lambda: known(keys) == {"key_3"})
        site.stop()

    asyncio.run(scene())


@pytest.mark.parametrize("seed", range(2))
def test_whatever_changes_in_whatever_order_all_workers_know_what_postgres_has(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)

    async def scene() -> None:
        site = await Site(tmp_path, Table(*map(key, range(SHORT + 50)))).start()
        workers = [await site.worker(), await site.worker(takes_changes=False)]
        for step in range(40):
            number = dice.randrange(SHORT + 100)
            name = f"key_{number}"
            if name in site.table.keys and dice.random() < 0.6:
                del site.table.keys[name]
            else:
                site.table.keys[name] = key(number, expires_at=dice.choice([0.0, 2e10]))
            site.table.away = dice.random() < 0.03
            site.policies.invalidate(name if dice.random() < 0.9 else "")
            if dice.random() < 0.1:
                site.table.ahead = step * 10.0
            if dice.random() < 0.3:
                await asyncio.sleep(0)
            if dice.random() < 0.05:
                site.table.away = False
                workers.append(await site.worker())
        site.table.away = False
        site.policies.invalidate()
        await until(lambda: set(site.policies.keys) == set(site.table.keys))
        for keys, _, _ in workers:
            await until(lambda keys=keys: known(keys) == set(site.table.keys) and keys.version == site.policies.version)
        site.stop()

    asyncio.run(scene())


def test_a_worker_that_is_too_far_behind_gets_everything(tmp_path: Path) -> None:
    async def scene() -> None:
        table = Table(key(1))
        policies = Policies(file=tmp_path / "p", load=table.load, find=table.find)
        task = asyncio.create_task(policies.run())
        begin = (await policies.newer_than(0)).version
        for number in range(2, CHANGES_KEPT + 4):
            table.keys[f"key_{number}"] = key(number)
            policies.invalidate(f"key_{number}")
            before = policies.version
            await policies.changed_since(before)
        assert policies.changes(begin) is None
        last = policies.changes(before)
        assert last is not None and [change.base for change in last] == [before]
        assert policies.changes(policies.version) == []
        task.cancel()

    asyncio.run(scene())


def test_a_notification_that_was_lost_is_made_up_for_and_nothing_is_read_while_nothing_changes(tmp_path: Path) -> None:
    async def scene() -> None:
        table = Table(key(1))
        policies = Policies(file=tmp_path / "p", load=table.load, find=table.find, mark=table.mark)
        task = asyncio.create_task(policies.run())
        await policies.newer_than(0)
        await policies._read(True)
        assert table.asked == ["all"], "they add up to the same"
        table.keys["key_2"] = key(2)
        await policies._read(True)
        assert table.asked == ["all", "all"] and "key_2" in policies.keys
        task.cancel()

    asyncio.run(scene())


def test_a_long_policy_is_on_disk_soon_after_and_whole(tmp_path: Path) -> None:
    async def scene() -> None:
        table = Table(*map(key, range(SHORT + 1)))
        policies = Policies(file=tmp_path / "p", load=table.load, find=table.find)
        task = asyncio.create_task(policies.run())
        await policies.newer_than(0)
        await until(lambda: (tmp_path / "p").exists())
        task.cancel()
        again = Policies(file=tmp_path / "p", load=table.load)
        assert again.keys == policies.keys and again.version == policies.version

    asyncio.run(scene())


def test_a_change_that_does_not_follow_is_not_taken() -> None:
    keys = WorkersKeys(pepper=PEPPER, wall=time.time)
    assert not keys.change(PolicyChange(version=2, base=1))
    keys.replace(Policy(version=1, keys=(key(1),)))
    assert not keys.change(PolicyChange(version=4, base=3, gone=(key(1).hash,)))
    assert known(keys) == {"key_1"}
    assert not keys.add(PolicyPart(version=9, first=True, last=False, keys=(key(5),)))
    assert known(keys) == {"key_1"}, "a policy that is not whole yet counts for nothing"
    assert keys.add(PolicyPart(version=9, first=False, last=True, keys=(key(6),)))
    assert known(keys) == {"key_5", "key_6"}
