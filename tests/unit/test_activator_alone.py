"""Postgres away: the catalogue beside the policy, and who may lead by this machine's own lock."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from activator.catalogue import Catalogue
from activator.edges import catalogue_file, lease
from activator.edges.catalogue_file import CatalogueFile
from activator.edges.lease import Lease
from activator.edges.machine_lock import MachineLock
from pilotlight import epoch_file
from pilotlight.settings import load
from tests.fakes_activator import endpoint, revision
from tests.small_disks import fill, small_disk

NOWHERE = "postgresql:///postgres?host=/nonexistent"


def machine(folder: Path, *, may: bool = True) -> MachineLock:
    return MachineLock(lock=folder / "activator.lock", epochs=folder / "epoch", may=may)


async def written(file: Path, names: list[str]) -> None:
    async with asyncio.timeout(5):
        while sorted(found.name for found in catalogue_file.read(file) or ()) != names:
            await asyncio.sleep(0.001)


def test_what_is_kept_is_what_was_served(tmp_path: Path) -> None:
    file = tmp_path / "catalogue.json"
    assert catalogue_file.read(file) is None
    args = {"dtype": "bfloat16", "max-model-len": 7, "enforce-eager": True, "gpu-memory-utilization": 0.5}
    served = [
        endpoint("a", revision("a", 1), revision("a", 2, engine_args=args, zero="parked")),
        endpoint("b", removed=True),
    ]
    catalogue_file.write(file, served)
    assert catalogue_file.read(file) == served
    file.write_bytes(file.read_bytes().replace(b'"name":"a"', b'"name":"a","later":1'))  # of a release after this one
    assert catalogue_file.read(file) == served
    file.write_bytes(file.read_bytes()[:-9])
    assert catalogue_file.read(file) is None


async def test_every_change_of_the_catalogue_is_kept(tmp_path: Path) -> None:
    file, catalogue = tmp_path / "catalogue.json", Catalogue()
    keeping = CatalogueFile(file, [endpoint("a")])
    catalogue.put(endpoint("a"))
    catalogue.on_put = keeping.put
    running = asyncio.create_task(keeping.run())
    await written(file, ["a"])
    catalogue.put(endpoint("b"))
    await written(file, ["a", "b"])
    catalogue.put(endpoint("a", revision("a", 2)))
    async with asyncio.timeout(5):
        while [len(found.revisions) for found in catalogue_file.read(file) or ()] != [
            2,
            1,
        ]:  # one that may still run is kept with the new one
            await asyncio.sleep(0.001)
    running.cancel()


async def test_a_full_disk_keeps_what_was_and_takes_the_rest_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_file, "RETRY_SECONDS", 0.01)
    with small_disk(tmp_path / "d", 256 << 10) as folder:
        file = folder / "catalogue.json"
        keeping = CatalogueFile(file, [endpoint("a")])
        running = asyncio.create_task(keeping.run())
        await written(file, ["a"])
        filler = fill(folder)
        with capture_logs() as logs:
            keeping.put(endpoint("b"))
            async with asyncio.timeout(5):
                while not logs:
                    await asyncio.sleep(0.001)
        assert [line["action"] for line in logs] == ["catalogue_unkept"]
        assert [found.name for found in catalogue_file.read(file) or ()] == ["a"] and not running.done()
        filler.unlink()
        await written(file, ["a", "b"])
        running.cancel()


def test_what_postgres_has_otherwise() -> None:
    served = [endpoint("a"), endpoint("b"), endpoint("c", removed=True), endpoint("same")]
    changed = endpoint("a", revision("a", 2))
    assert catalogue_file.differences(served, [changed, endpoint("same"), endpoint("new")]) == [
        changed,
        endpoint("new"),
        replace(endpoint("b"), removed=True, route=()),
    ]


def test_one_of_a_machine_leads_and_its_successor_under_a_higher_epoch(tmp_path: Path) -> None:
    first, second = machine(tmp_path), machine(tmp_path)
    assert first.lead(0) == 1 and second.lead(0) == 0 and second.lead(99) == 0
    assert first.lead(7) == 8 and epoch_file.read(tmp_path / "epoch") == 8
    first.let_go()
    assert second.lead(0) == 9


def test_where_postgres_may_be_anothers_nobody_leads_without_it(tmp_path: Path) -> None:
    apart = machine(tmp_path, may=False)
    assert apart.hold() and apart.led(5) and apart.lead(0) == 0 and apart.highest == 5
    own = load(state_dir=tmp_path, database_url="postgresql://h/db")
    assert not MachineLock.of(own).may and MachineLock.of(load(state_dir=tmp_path, database_url="")).may
    assert MachineLock.of(load(state_dir=tmp_path, database_url="postgresql://h/db", activator={"alone": True})).may


def test_a_disk_that_does_not_take_the_epoch_lets_nobody_lead(tmp_path: Path) -> None:
    broken = MachineLock(lock=tmp_path / "lock", epochs=tmp_path / "missing" / "epoch", may=True)
    assert broken.lead(0) == 0
    assert MachineLock(lock=tmp_path / "missing" / "lock", epochs=tmp_path / "epoch", may=True).lead(0) == 0


def test_a_full_disk_takes_the_next_epoch(tmp_path: Path) -> None:
    with small_disk(tmp_path / "d", 128 << 10) as folder:
        first = machine(folder)
        assert first.lead(0) == 1
        fill(folder)
        first.let_go()
        assert [machine_led(folder) for _ in range(3)] == [2, 3, 4]


def machine_led(folder: Path) -> int:
    """The epoch under which one more activator of this machine leads, until it dies."""
    one = machine(folder)
    epoch = one.lead(0)
    one.let_go()
    return epoch


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["lead", "postgres", "die"]), st.integers(0, 50))))
def test_every_epoch_is_above_all_before_and_one_leads(steps: list[tuple[int, str, int]]) -> None:
    """Three processes of a machine, in any order: `postgres` is a lead that Postgres gave, with epochs as it counts."""
    folder = Path(f"/dev/shm/alone-{os.getpid()}")
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    processes, leads, highest, in_postgres = [machine(folder) for _ in range(3)], -1, 0, 0
    for who, what, above in steps:
        if what == "die":
            processes[who].let_go()
            leads = -1 if leads == who else leads
            continue
        if what == "postgres":
            epoch = max(in_postgres, processes[who].highest) + 1 if processes[who].hold() else 0
            in_postgres = epoch or in_postgres
            assert not epoch or processes[who].led(epoch)
        else:
            epoch = processes[who].lead(above)
        assert (epoch > 0) == (leads in (-1, who))
        if epoch:
            assert epoch > highest
            leads, highest = who, epoch
    for process in processes:
        process.let_go()
    shutil.rmtree(folder)


async def test_a_lease_is_taken_without_postgres_where_the_machine_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "AWAY_SECONDS", 0.0)
    monkeypatch.setattr(lease, "RETRY_SECONDS", 0.01)
    epoch_file.keep(tmp_path / "epoch", 7)
    leader, other, far = (
        Lease(NOWHERE, machine(tmp_path)),
        Lease(NOWHERE, machine(tmp_path)),
        Lease(NOWHERE, machine(tmp_path, may=False)),
    )
    assert await leader.acquire(without=lambda: True) == 8 and not leader.connected
    waiting = [asyncio.create_task(lease.acquire(without=lambda: True)) for lease in (other, far)]
    waiting.append(asyncio.create_task(Lease(NOWHERE, machine(tmp_path)).acquire()))  # it knows no catalogue
    epochs = asyncio.Queue[int]()
    keeping = asyncio.create_task(leader.keep(epochs.put))
    leader.raise_above(20)  # an agent has obeyed this one
    async with asyncio.timeout(5):
        assert await epochs.get() == 21
        assert epoch_file.read(tmp_path / "epoch") == 21 and not any(task.done() for task in waiting)
        keeping.cancel()
        await leader.give_up()
        assert await waiting[0] == 22
    assert not waiting[1].done() and not waiting[2].done()
    for task in waiting:
        task.cancel()
    await other.give_up()


async def test_what_is_forgotten_leaves_the_file(tmp_path: Path) -> None:
    file, catalogue = tmp_path / "catalogue.json", Catalogue()
    keeping = CatalogueFile(file, ())
    catalogue.on_put, catalogue.on_gone = keeping.put, keeping.drop
    running = asyncio.create_task(keeping.run())
    catalogue.put(endpoint("a"))
    catalogue.put(endpoint("b", removed=True))
    await written(file, ["a", "b"])
    catalogue.forget("rev_b1")
    catalogue.forget("rev_a1")
    await written(file, ["a"])
    running.cancel()
