"""Wakes of a snapshot that lies only in an object store: it begins before the last byte has arrived, fetches nothing
twice, and whatever the store, the disk or a kill does to it ends in an answer or a clear error, after which the next
wake works.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from snapshots.errors import Unreachable
from snapshots.manifest import CHUNK, MANIFEST, Manifest, folder_name
from snapshots.pack import pack
from snapshots.store import stall
from snapshots.store.disk import remove_folder
from snapshots.synth import synth
from snapshots.transfer import pull
from tests.integration.faulty_store import Store, serving
from tests.integration.system import System, running, wait_until

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def packed() -> Iterator[tuple[Path, Manifest]]:
    """A store with a model whose weights are seven chunks."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="pl-o-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        yield folder / "store", pack(synth("tiny", folder / "model"), folder / "store")
        remove_folder(folder / "store")


@pytest.fixture(scope="module")
def store(packed: tuple[Path, Manifest]) -> Iterator[Store]:
    with serving(packed[0]) as store:
        yield store


@pytest.fixture(scope="module")
def system(store: Store) -> Iterator[System]:
    with running(**store.environ) as system:
        yield system


@pytest.fixture(scope="module")
def keys(system: System, packed: tuple[Path, Manifest]) -> dict[str, str]:
    """Two endpoints on the same digest, which nobody has packed here."""
    found = {}
    for name in ("one", "two"):
        system.cli("deploy", name, "--digest", packed[1].digest, "--idle-timeout", "0.3", "--no-wait")
        found[name] = system.key(name)
    return found


@pytest.fixture(autouse=True)
def nothing_is_here(system: System, keys: dict[str, str], store: Store, packed: tuple[Path, Manifest]) -> None:
    """At zero, with nothing of the snapshot on the node, and a store that does as it should."""
    for name in keys:
        system.until_zero(name)
    partial, stamp = partial_of(system, packed[1]), system.paths.staged / f"{folder_name(packed[1].digest)}.stamp"
    here = system.paths.snapshots / folder_name(packed[1].digest)
    wait_until(
        lambda: nobody_fetches(system, packed[1]) and (stamp.exists() or not here.exists()),
        120,
        "what was fetched is durable",
    )
    remove_folder(partial)
    remove_folder(here)
    stamp.unlink(missing_ok=True)
    remove_folder(system.paths.baked / folder_name(packed[1].digest))
    store.forget()


def partial_of(system: System, manifest: Manifest) -> Path:
    return system.paths.snapshots / f".pull-{folder_name(manifest.digest)}"


def nobody_fetches(system: System, manifest: Manifest) -> bool:
    return not partial_of(system, manifest).with_suffix(".lock").exists()


async def ask(system: System, key: str, name: str = "one", deadline: float = 300) -> httpx.Response:
    body = {"model": name, "prompt": "hello", "max_tokens": 4, "temperature": 0}
    async with system.async_client(key) as client:
        return await client.post(f"/e/{name}/v1/completions", json=body, headers={"prefer": f"wait={deadline:g}"})


async def works(system: System, keys: dict[str, str]) -> httpx.Response:
    """As a client that is told when to come again, and does."""
    answer = await ask(system, keys["one"])
    for _ in range(3):
        if answer.status_code == 503:
            await asyncio.sleep(int(answer.headers["retry-after"]))
            answer = await ask(system, keys["one"])
    assert answer.status_code == 200, answer.text
    return answer


def fetched_once(store: Store) -> bool:
    return all(times == 1 for (name, _), times in store.asked.items() if name != MANIFEST)


async def test_it_begins_before_the_last_byte_has_arrived(
    system: System, keys: dict[str, str], store: Store, packed: tuple[Path, Manifest]
) -> None:
    store.faults.bytes_a_second, store.faults.slow_from = (
        2 << 20,
        CHUNK,
    )  # all but the begin takes 4 s, longer than a fork on a busy machine
    answer = await works(system, keys)
    phases = {phase["name"]: phase for phase in system.request(answer.headers["x-request-id"])["phases"]}
    assert phases["fetch"]["seconds"] > 3.6
    assert "spawn" not in phases  # beside the fetch it cost nothing
    assert phases["load"]["note"] == "baked"
    assert fetched_once(store)
    assert store.sent < packed[1].size * 1.1
    system.until_zero("one")
    again = await works(system, keys)
    phases = {phase["name"]: phase for phase in system.request(again.headers["x-request-id"])["phases"]}
    assert phases["load"]["note"] == "mapped"
    assert again.json()["choices"][0]["text"] == answer.json()["choices"][0]["text"]
    assert store.sent < packed[1].size * 1.1


async def test_of_two_endpoints_that_wake_at_once_one_fetches(
    system: System, keys: dict[str, str], store: Store
) -> None:
    answers = await asyncio.gather(ask(system, keys["one"]), ask(system, keys["two"], "two"))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert fetched_once(store)


async def test_connections_that_break_off_cost_only_time(system: System, keys: dict[str, str], store: Store) -> None:
    store.faults.resets = 5
    await works(system, keys)
    assert store.faults.resets == 0


async def test_a_store_that_lies_once_is_asked_once_more(system: System, keys: dict[str, str], store: Store) -> None:
    store.faults.lies[WEIGHTS, 2 * CHUNK] = store.faults.lies["config.json", 0] = 1
    await works(system, keys)
    assert {place for place, times in store.asked.items() if times > 1 and place[0] != MANIFEST} == {
        (WEIGHTS, 2 * CHUNK),
        ("config.json", 0),
    }


async def test_a_store_that_goes_on_lying_fails_the_start_by_name(
    system: System, keys: dict[str, str], store: Store
) -> None:
    store.faults.lies[WEIGHTS, 3 * CHUNK] = 1000
    answer = await ask(system, keys["one"])
    assert answer.status_code == 503
    assert f"{WEIGHTS} has wrong bytes from {3 * CHUNK} to {4 * CHUNK}" in await asyncio.to_thread(
        system.failure, "one"
    )
    before = store.sent
    store.faults.lies.clear()
    await works(system, keys)
    assert store.sent - before < 4 * CHUNK  # what was good is kept


async def test_the_agent_killed_while_it_fetches(
    system: System, keys: dict[str, str], store: Store, packed: tuple[Path, Manifest]
) -> None:
    store.faults.bytes_a_second, store.faults.slow_from = 4 << 20, 2 * CHUNK
    request = asyncio.create_task(ask(system, keys["one"]))
    journal = partial_of(system, packed[1]) / "journal"
    await asyncio.to_thread(
        wait_until,
        lambda: journal.exists() and len(journal.read_bytes().splitlines()) >= 6,
        90,
        "some chunks are there",
    )
    kept = journal.read_bytes().splitlines()
    os.kill(system.pid_of("runtime"), signal.SIGKILL)
    store.faults.bytes_a_second = 0
    answer = await request
    assert answer.status_code in (200, 503), answer.text
    await works(system, keys)
    small = sum(file.size <= CHUNK for file in packed[1].files)
    assert sum(times for (name, _), times in store.asked.items() if name != MANIFEST) <= 2 * (7 + small) - len(kept)


async def test_a_store_that_trickles_is_a_clear_error_in_time(
    system: System, keys: dict[str, str], store: Store, packed: tuple[Path, Manifest]
) -> None:
    store.faults.bytes_a_second = 100_000
    answer = await ask(system, keys["one"], deadline=3)
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert partial_of(system, packed[1]).exists()  # it goes on: the next caller has less to wait for
    store.faults.bytes_a_second = 0
    store.faults.stopped.set()
    await works(system, keys)


async def test_a_connection_that_trickles_is_given_up_for_a_new_one(
    store: Store, packed: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only new connections are good again: whoever holds on to an old one waits 32 s for its chunk."""
    for name, value in store.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(stall, "PATIENCE", 1.5)
    monkeypatch.setattr(stall, "SLOWEST", 100 * CHUNK)
    place = (WEIGHTS, 2 * CHUNK)
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="pl-t-", ignore_cleanup_errors=True) as name:
        try:
            store.faults.trickles[place] = 1
            await pull("s3://models", packed[1].digest, Path(name) / "one")
            assert store.asked[place] == 2
            store.faults.trickles[place] = 1000
            says = (
                f"s3://models/sha256-.*/{WEIGHTS} comes too slowly from {2 * CHUNK} to {3 * CHUNK}: only .* try again"
            )
            with pytest.raises(Unreachable, match=says):
                await pull("s3://models", packed[1].digest, Path(name) / "two")
            assert store.asked[place] == 4
            store.faults.trickles.clear()
            before = store.sent
            await pull("s3://models", packed[1].digest, Path(name) / "two")
            assert store.sent - before < 4 * CHUNK  # what was good is kept
        finally:
            remove_folder(Path(name))


@pytest.fixture
def small_disk(system: System, packed: tuple[Path, Manifest], keys: dict[str, str]) -> Iterator[Callable[[str], None]]:
    """The node's store on a disk of its own, which is nearly full; called with a size, it grows. Skips where nothing
    can be mounted.
    """

    def mount(*arguments: str) -> bool:
        return (
            subprocess.run(
                ["mount", *arguments, str(system.paths.snapshots)], capture_output=True, check=False
            ).returncode
            == 0
        )

    def grow(size: str) -> None:
        assert mount("-o", f"remount,size={size}")

    if os.geteuid() != 0 or not mount("-t", "tmpfs", "-o", "size=300m", "tmpfs"):
        pytest.skip("mounting a small disk takes root and the right to mount")
    (system.paths.snapshots / "ballast").write_bytes(bytes(20 << 20))
    try:
        yield grow
        for name in keys:
            system.until_zero(name)
        wait_until(lambda: nobody_fetches(system, packed[1]), 120, "what was fetched is durable")
    finally:
        subprocess.run(["umount", "--lazy", str(system.paths.snapshots)], check=True, capture_output=True)


async def test_a_full_disk_is_a_clear_error_and_blocks_nothing(
    system: System, keys: dict[str, str], packed: tuple[Path, Manifest], small_disk: Callable[[str], None]
) -> None:
    answer = await ask(system, keys["one"])
    assert answer.status_code == 503
    assert "do not fit the node's disk" in await asyncio.to_thread(system.failure, "one")
    assert not partial_of(system, packed[1]).exists()
    small_disk("1g")
    await works(system, keys)
