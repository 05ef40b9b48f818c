"""Step 12: the spool on disks that are slow, full or broken, and the lines in it."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from activator.wire import ReplicaRow
from pilotlight.sealed import is_intact
from router.admission.auth import Tenant
from router.admission.request import new_event_id
from router.edge.exchange import Exchange
from router.errors import SpoolFull
from router.hold.pool import Pool
from router.hold.replicas import Endpoint, Replica
from router.ledger.tail import Tail
from router.metrics import Metrics
from router.relay.answer import MOST_KEPT
from router.relay.meter import Meter, waited_for
from router.spool import spool as spool_module
from router.spool.record import NO_TOKENS, EndRecord, OpenRecord, SpoolLine, Tokens
from router.spool.spool import Spool
from runtime.wire import Phase
from tests.fakes import SSE_HEAD, FakeRequest, chunk, event
from tests.fakes_ledger import Disk
from tests.router_world import endpoint_row, key_row, until, world

LINES: TypeAdapter[OpenRecord | EndRecord] = TypeAdapter(SpoolLine)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def made(folder: Path, disk: Disk) -> Spool:
    return Spool(folder, "w", loop=asyncio.get_running_loop(), write=disk.write, sync=disk.sync)


def lines(folder: Path) -> list[bytes]:
    return [line for file in sorted(folder.glob("*.jsonl")) for line in file.read_bytes().splitlines(keepends=True)]


async def test_a_line_is_told_durable_only_once_it_is(folder: Path) -> None:
    disk = Disk()
    disk.may_sync.clear()
    spool = made(folder, disk)
    heard: list[str] = []
    spool.when_synced(spool.open(b"1\n"), lambda: heard.append("first"))
    spool.when_synced(spool.open(b"2\n"), lambda: heard.append("second"))
    await until(disk.asked.is_set)
    assert (heard, spool.synced) == ([], 0)
    disk.may_sync.set()
    await until(lambda: heard == ["first", "second"])
    assert spool.synced == 2
    spool.close()


async def test_opens_that_come_together_are_synced_together(folder: Path) -> None:
    disk = Disk()
    disk.may_sync.clear()
    spool = made(folder, disk)
    numbers = [spool.open(b"%d\n" % n) for n in range(100)]
    disk.may_sync.set()
    await until(lambda: spool.synced == numbers[-1])
    assert disk.syncs <= 2
    spool.close()


async def test_ends_are_synced_within_their_time(folder: Path) -> None:
    disk = Disk()
    spool = made(folder, disk)
    spool.end(b"1\n")
    await until(lambda: spool.synced == 1, seconds=1)
    spool.close()


async def test_syncs_keep_their_pace_and_take_along_what_was_written_meanwhile(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "REST_SECONDS", 0.06)
    monkeypatch.setattr(spool_module, "BUSY_LINES", 1)
    disk = Disk()
    spool = made(folder, disk)
    spool.open(b"1\n")
    await until(lambda: spool.synced == 1)
    began = time.monotonic()
    spool.open(b"2\n")
    spool.open(b"3\n")
    spool.end(b"2 ends\n")
    spool.flush()
    await until(lambda: spool.synced == 4)
    assert time.monotonic() - began > 0.02
    assert disk.syncs == 2
    spool.close()


async def test_an_end_that_comes_while_it_rests_is_synced_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "BUSY_LINES", 1)
    spool = made(folder, Disk())
    spool.open(b"1\n")
    await until(lambda: spool.synced == 1)
    spool.end(b"1 ends\n")
    await until(lambda: spool.synced == 2, seconds=1)
    assert lines(folder) == [b"1\n", b"1 ends\n"]
    spool.close()


async def test_ends_go_with_the_next_open_in_one_write(folder: Path) -> None:
    writes: list[bytes] = []

    def write(descriptor: int, data: bytes) -> int:
        writes.append(data)
        return os.write(descriptor, data)

    spool = Spool(folder, "w", loop=asyncio.get_running_loop(), write=write)
    spool.open(b"1\n")
    spool.end(b"1 ends\n")
    spool.open(b"2\n")
    spool.end(b"2 ends\n")
    spool.flush()
    spool.flush()
    assert writes == [b"1\n", b"1 ends\n2\n", b"2 ends\n"]
    spool.close()


async def test_where_there_is_room_for_the_ends_alone_they_are_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, disk = os.ftruncate, Disk(room=9)
    spool = made(folder, disk)
    spool.open(b"1\n")
    spool.end(b"1 ends\n")

    def cut(descriptor: int, size: int) -> None:
        real(descriptor, size)
        disk.room = 7  # what was taken back is free again

    monkeypatch.setattr(os, "ftruncate", cut)
    with pytest.raises(SpoolFull):
        spool.open(b"a longer line\n")
    assert lines(folder) == [b"1\n", b"1 ends\n"]
    spool.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_end_record_is_written_before_the_last_byte(stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as w:
        seen: list[tuple[bytes, list[str]]] = []
        real = Exchange.write

        def write(exchange: Exchange, data: bytes) -> None:
            seen.append((data, [json.loads(line)["kind"] for line in lines(w.folder)]))
            real(exchange, data)

        monkeypatch.setattr(Exchange, "write", write)
        for _ in range(3):
            seen.clear()
            before = len(lines(w.folder))
            assert (await w.ask(stream=stream)).status == 200
            assert seen[-1][1][before:] == ["open", "end"]
            assert "open" in seen[0][1][before:]


async def test_a_full_disk_tears_no_line_and_loses_no_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "RETRY_SECONDS", 0.01)
    disk = Disk(room=10)
    spool = made(folder, disk)
    spool.open(b"1234567\n")
    with pytest.raises(SpoolFull, match="No space"):
        spool.open(b"1234567\n")
    assert lines(folder) == [b"1234567\n"]
    disk.room = 0
    spool.end(b"end\n")
    with pytest.raises(SpoolFull):
        spool.open(b"x\n")
    disk.room = 1 << 20
    await until(lambda: lines(folder) == [b"1234567\n", b"end\n"])
    spool.open(b"x\n")
    spool.close()


async def test_a_disk_that_will_not_sync(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs goes on, new requests are refused for a moment, and then a new file is tried."""
    monkeypatch.setattr(spool_module, "RETRY_SECONDS", 0.05)
    disk = Disk()
    disk.broken = True
    spool = made(folder, disk)
    heard: list[int] = []
    spool.when_synced(spool.open(b"1\n"), lambda: heard.append(1))
    await until(lambda: heard == [1])
    with pytest.raises(SpoolFull, match="synced"):
        spool.open(b"2\n")
    disk.broken = False
    await until(lambda: not spool._refusing)
    number = spool.open(b"3\n")
    await until(lambda: spool.synced >= number)
    assert len(list(folder.glob("*.jsonl"))) == 2
    spool.close()


async def test_files_are_rotated_and_the_ledger_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "ROTATE_BYTES", 100)
    monkeypatch.setattr(spool_module, "TELL_SECONDS", 0.01)
    told: dict[str, int] = {}
    spool = made(folder, Disk())
    spool.tell(told.__setitem__)
    for _ in range(25):
        spool.open(b"x" * 9 + b"\n")
    await until(lambda: told == {"w.0.jsonl": 100, "w.1.jsonl": 100, "w.2.jsonl": 50})
    spool.close()
    tail = Tail(folder)
    assert [(file.worker, file.number) for file in sorted(tail.scan(), key=lambda f: f.number)] == [
        ("w", 0),
        ("w", 1),
        ("w", 2),
    ]


async def test_nothing_is_written_before_the_first_request(folder: Path) -> None:
    spool = made(folder, Disk())
    spool.close()
    assert not list(folder.iterdir())


async def test_a_full_disk_refuses_requests_and_lets_the_running_finish() -> None:
    disk = Disk()

    def spool(*args: Any, **more: Any) -> Spool:
        return Spool(*args, write=disk.write, sync=disk.sync, **more)

    async with world(spool=spool) as w:
        w.show(endpoint_row())
        running = await w.client()
        running.post(stream=True)
        await w.wait_held(1)
        disk.room = 0
        reply = await w.ask()
        assert (reply.status, reply.error["code"]) == (503, "disk_full")
        w.show(endpoint_row(w.row()))
        assert (await running.answer()).body.endswith(b"[DONE]\n\n")
        disk.room = 1 << 20
        w.spool._retry_ends()
        [end] = await w.ends()
        assert end["finish"] == "complete"


async def test_nothing_is_answered_while_the_disk_is_slow() -> None:
    disk = Disk()
    disk.may_sync.clear()
    async with world(spool=lambda *args, **more: Spool(*args, write=disk.write, sync=disk.sync, **more)) as w:
        client = await w.client()
        client.post()
        await w.replica.until(lambda: len(w.replica.emitted) == 1)
        await until(lambda: w.table.revisions["r1"].demand == 0)  # all of the answer is here
        assert client.reader._buffer == b""  # type: ignore[attr-defined]
        disk.may_sync.set()
        assert (await client.answer()).status == 200


async def test_a_disk_that_hangs_bounds_what_is_kept_of_an_answer() -> None:
    disk, sent, whole = Disk(), 0, 400
    disk.may_sync.clear()

    async def long(request: FakeRequest) -> AsyncIterator[bytes]:
        nonlocal sent
        yield SSE_HEAD
        for _ in range(whole):
            yield chunk(event({"choices": [{"delta": {"content": "x" * (16 << 10)}}]}))
            sent += 1
        yield chunk(b": pilotlight-usage 1;0;400\n\ndata: [DONE]\n\n") + b"0\r\n\r\n"

    async with world(spool=lambda *args, **more: Spool(*args, write=disk.write, sync=disk.sync, **more)) as w:
        w.replica.answer = long
        client = await w.client()
        client.post(stream=True)

        def call() -> Any:
            return next(
                (exchange.call for connection in w.connections for exchange in connection._turns if exchange.call), None
            )

        await until(lambda: call() and call()._disk_slow)
        answer = call()._answer
        assert MOST_KEPT < answer._kept_bytes == sum(map(len, answer._kept)) < 2 * MOST_KEPT + (256 << 10)
        for _ in range(1000):
            await asyncio.sleep(0)
        # what is beyond it waits at the replica
        assert sent < whole and answer._kept_bytes < 2 * MOST_KEPT + (256 << 10)
        disk.may_sync.set()
        reply = await client.answer()
        assert reply.status == 200 and sent == whole and reply.body.count(b"x" * (16 << 10)) == whole


class Lines:
    """A spool that is a list."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def open(self, line: bytes) -> int:
        self.lines.append(line)
        return len(self.lines)

    def end(self, line: bytes) -> None:
        self.lines.append(line)


def meter(spool: Lines, *, endpoint_id: str = "e1", org_id: str = "o", **more: Any) -> Meter:
    row = key_row("k", endpoint_id).model_copy(update={"org_id": org_id})
    return Meter(
        spool=spool,  # type: ignore[arg-type]
        metrics=Metrics(),
        tenant=Tenant(row),
        endpoint=Endpoint(endpoint_row(endpoint_id=endpoint_id)),
        event_id=new_event_id(),
        path="/v1/completions",
        streamed=True,
        **more,
    )


@given(text=st.text(max_size=20), counts=st.tuples(*[st.integers(0, 1 << 40)] * 3), phases=st.booleans())
def test_the_lines_are_records(text: str, counts: tuple[int, int, int], phases: bool) -> None:
    """Made by hand, so held to the contract whatever the ids are."""
    spool = Lines()
    made = meter(spool, endpoint_id=text, org_id=text)
    row = ReplicaRow(
        replica_id=text,
        address="unix:/x",
        slots=1,
        phases=(Phase(name="load", at=time.monotonic() - 1, seconds=9.0),) if phases else (),
    )
    made.held_seconds = 0.25
    made.dispatched(text, Replica(row, pool=Pool("unix:/x"), now=0.0), cold=phases)
    made.first_byte()
    made.close(status=200, finish="complete", tokens=Tokens(*counts, "engine"))
    opened, ended = (LINES.validate_json(line, extra="ignore") for line in spool.lines)
    assert all(is_intact(line.removesuffix(b"\n")) for line in spool.lines)
    assert isinstance(opened, OpenRecord)
    assert isinstance(ended, EndRecord)
    assert opened.event_id == ended.event_id == made.event_id
    assert opened.org_id == opened.endpoint_id == ended.replica_id == ended.revision_id == text
    assert (ended.input_tokens, ended.cached_tokens, ended.output_tokens) == counts
    assert [phase.name for phase in ended.phases] == (["hold", "load", "first_token"] if phases else [])
    assert all(line.endswith(b"}\n") and line.count(b"\n") == 1 for line in spool.lines)


def test_a_meter_closes_once() -> None:
    spool = Lines()
    made = meter(spool)
    made.close(status=503, finish="timeout", tokens=NO_TOKENS)
    made.close(status=200, finish="complete", tokens=Tokens(1, 1, 1, "engine"))
    assert len(spool.lines) == 2
    ended = json.loads(spool.lines[1])
    assert (ended["finish"], ended["first_byte_ms"]) == ("timeout", None)


def test_event_ids_are_uuid7_in_hex() -> None:
    import uuid

    ids = [new_event_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    for text in ids[:50]:
        made = uuid.UUID(hex=text)
        assert (made.version, made.variant, made.hex) == (7, uuid.RFC_4122, text)


def test_phases_add_up_to_the_wait() -> None:
    """A start of 3 s, from 10 to 13; init ends where it was dispatched, and the load lies within it, not counted
    twice.
    """
    start = (
        Phase(name="place", at=10.0, seconds=0.5),
        Phase(name="spawn", at=10.5, seconds=0.5),
        Phase(name="init", at=11.0, seconds=1.5),
        Phase(name="load", at=11.5, seconds=0.5),
    )
    witnessed = waited_for(start, 9.9, 13.2)
    assert {phase.name: round(phase.seconds, 6) for phase in witnessed} == {
        "hold": 0.3,
        "place": 0.5,
        "spawn": 0.5,
        "init": 1.5,
        "load": 0.5,
    }
    late = waited_for(start, 10.8, 13.2)
    assert [phase.name for phase in late] == ["hold", "spawn", "init", "load"]
    assert sum(phase.seconds for phase in late) == pytest.approx(13.2 - 10.8)
    assert [phase.name for phase in waited_for(start, 20.0, 20.5)] == ["hold"]


def is_locked(file: Path) -> bool:
    with file.open("rb") as seen:
        try:
            fcntl.flock(seen, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


async def test_one_file_is_locked_from_its_name_on_and_until_the_next_one_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whatever moment somebody looks, after the first line: one of the names in the folder is locked."""
    monkeypatch.setattr(spool_module, "ROTATE_BYTES", 4)
    held: list[list[str]] = []

    def look() -> None:
        held.append([file.name for file in sorted(folder.glob("*.jsonl")) if is_locked(file)])

    def write(descriptor: int, data: bytes) -> int:
        look()
        return os.write(descriptor, data)

    def close(descriptor: int) -> None:
        look()
        os.close(descriptor)
        look()

    spool = Spool(folder, "w", loop=asyncio.get_running_loop(), write=write, close=close)
    for number in range(4):
        spool.open(b"%d00\n" % number)
        await until(lambda number=number: spool.synced == number + 1)
        look()
    assert all(held) and held[-1] == ["w.3.jsonl"], held
    spool.close()
    look()
    assert held[-1] == [] and len(list(folder.iterdir())) == 4


async def test_a_worker_whose_disk_does_not_sync_keeps_its_lock(folder: Path) -> None:
    disk = Disk()
    spool = made(folder, disk)
    disk.broken = True
    spool.open(b"1\n")
    await until(lambda: spool.synced == 1)
    spool.end(b"1 ends\n")
    await until(lambda: spool.synced == 2)
    first, second = folder / "w.0.jsonl", folder / "w.1.jsonl"
    assert is_locked(first) or is_locked(second)
    disk.broken = False
    spool.end(b"another\n")
    await until(lambda: spool.synced == 3)
    assert any(is_locked(file) for file in folder.glob("*.jsonl"))
    spool.close()
    assert not any(is_locked(file) for file in folder.glob("*.jsonl"))


async def test_a_file_that_cannot_be_closed_costs_one_refusal_and_not_the_thread(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "ROTATE_BYTES", 4)
    monkeypatch.setattr(spool_module, "RETRY_SECONDS", 0.01)
    troubles = [OSError(errno.EIO, "Input/output error")]

    def close(descriptor: int) -> None:
        os.close(descriptor)
        if troubles:
            raise troubles.pop()

    spool = Spool(folder, "w", loop=asyncio.get_running_loop(), close=close)
    spool.open(b"100\n")
    await until(lambda: spool.synced == 1)
    spool.open(b"200\n")
    await until(lambda: spool.synced == 2 and not troubles)

    def accepts() -> bool:
        try:
            return spool.open(b"300\n") > 0
        except SpoolFull:
            return False

    await until(accepts)
    await until(lambda: spool.synced == 3)
    spool.close()
