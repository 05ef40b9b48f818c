"""The line at the gate: longest first, one promise a free slot, and nothing is kept for who does not come."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from runtime.serving.line import MOST_IN_LINE, Line
from runtime.wire import TURN_HEADER
from tests.fakes_gate import GatedReplica, call, make, named
from tests.router_world import endpoint_row, until, world


async def test_a_freed_slot_goes_to_who_has_waited_longest() -> None:
    free = 0
    line = Line(lambda: free)
    short, long, middle = (line.join(waited) for waited in (0.1, 9.0, 1.0))
    assert short is not None and long is not None and middle is not None
    line.give()
    assert not long.done()
    free = 2
    line.give()
    assert (long.done(), middle.done(), short.done()) == (True, True, False)
    assert line.promised == 2
    assert line.redeem(named(long.result()), TURN_HEADER.encode())
    assert not line.redeem(named(long.result()), TURN_HEADER.encode()), "a turn is good once"
    free = 1
    line.give()
    assert not short.done(), "the other slot is promised already"


async def test_a_promise_that_is_not_used_lapses_to_the_next() -> None:
    line = Line(lambda: 1)
    first, second, third = line.join(3.0), line.join(2.0), line.join(1.0)
    assert first is not None and second is not None and third is not None
    assert first.done() and not second.done()
    async with asyncio.timeout(5):
        await second
    assert not line.redeem(named(first.result()), TURN_HEADER.encode())
    line.leave(second)  # it had its turn and is gone: at once the next one's
    assert third.done()


async def test_who_leaves_with_its_turn_was_not_late() -> None:
    line = Line(lambda: 1)
    for _ in range(3):
        place = line.join(1.0, "r")
        assert place is not None and place.done()
        line.leave(place)
    assert not line._late and line.promised == 0


async def test_who_leaves_the_line_is_passed_over_and_a_drain_sends_all_away() -> None:
    free = 0
    line = Line(lambda: free)
    gone, stays = line.join(5.0), line.join(1.0)
    assert gone is not None and stays is not None
    line.leave(gone)
    free = 1
    line.give()
    assert stays.done()
    waiting = line.join(0.0)
    assert waiting is not None
    line.end()
    assert waiting.result() is None


async def test_the_line_is_bounded() -> None:
    line = Line(lambda: 0)
    assert all(line.join(0.0) is not None for _ in range(MOST_IN_LINE))
    assert line.join(0.0) is None


async def test_the_gate_keeps_a_slot_for_whose_turn_it_is(tmp_path: Path) -> None:
    gate, engine, _ = make(tmp_path)
    running = asyncio.ensure_future(call(gate))
    await asyncio.sleep(0)
    turn = asyncio.ensure_future(_turn(gate))
    await until(lambda: len(gate.line))
    engine.go.set()
    assert (await running)[0] == 200
    status, headers = await turn
    assert status == 200
    assert (await call(gate))[1][b"x-pilotlight-refused"] == b"full", "the free slot is promised"
    name = headers[TURN_HEADER.encode()]
    assert (await call(gate, headers=[(TURN_HEADER.encode(), name)]))[0] == 200
    gate.drain(lambda: None)
    assert (await _turn(gate))[1][b"x-pilotlight-refused"] == b"draining"


async def test_a_caller_of_the_line_that_disconnects_gives_its_place_up(tmp_path: Path) -> None:
    gate, engine, _ = make(tmp_path)
    running = asyncio.ensure_future(call(gate))
    await asyncio.sleep(0)
    left = asyncio.Event()
    turn = asyncio.ensure_future(_turn(gate, left))
    await until(lambda: len(gate.line))
    left.set()
    await turn
    assert not len(gate.line)
    engine.go.set()
    await running
    assert gate.line.promised == 0


async def _turn(gate: Any, left: asyncio.Event | None = None) -> tuple[int, dict[bytes, bytes]]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    first = True

    async def receive() -> Any:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": b"", "more_body": False}
        await (left or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    await gate({"type": "http", "path": "/turn", "headers": []}, receive, send)
    return (sent[0]["status"], dict(sent[0]["headers"])) if sent else (0, {})


async def test_a_router_that_was_refused_waits_in_the_line_and_its_hold_is_told() -> None:
    async with world(show=False) as w:
        gated = await GatedReplica(f"unix:{w.folder}/g.sock", slots=1).start()
        stranger = w.row(replica_id="g", address=gated.address, slots=8)  # so many that only the gate's word counts
        w.show(endpoint_row(stranger))
        first, second = await w.client(), await w.client()
        first.post()
        await gated.until(lambda: len(gated.running) == 1)
        second.post()
        await w.wait_held(1)
        await until(lambda: len(gated.gate.line))
        assert gated.gate.line._places[0].router, "by its name it is known to be late"
        gated.finish()
        assert (await first.answer()).status == 200
        await gated.until(lambda: len(gated.order) == 2)
        await w.wait_held(0)
        gated.finish()
        reply = await second.answer()
        assert reply.status == 200
        assert float(reply.headers["x-pilotlight-hold-ms"]) > 0
        assert gated.most_running == 1
        await gated.stop()


async def test_who_leaves_the_hold_leaves_the_line() -> None:
    async with world(show=False) as w:
        gated = await GatedReplica(f"unix:{w.folder}/g.sock", slots=1).start()
        w.show(endpoint_row(w.row(replica_id="g", address=gated.address, slots=8)))
        first, second = await w.client(), await w.client()
        first.post()
        await gated.until(lambda: len(gated.running) == 1)
        second.post()
        await until(lambda: len(gated.gate.line))
        second.leave()
        await until(lambda: not len(gated.gate.line))
        gated.finish()
        assert (await first.answer()).status == 200
        [_ended, left] = sorted(await w.ends(), key=lambda end: end["status"] == 0)
        assert (left["status"], left["replica_id"], left["output_tokens"]) == (0, "", 0)
        await gated.stop()


async def test_a_drain_sends_what_waits_in_the_line_elsewhere() -> None:
    async with world(show=False) as w:
        gated = await GatedReplica(f"unix:{w.folder}/g.sock", slots=1).start()
        w.show(endpoint_row(w.row(replica_id="g", address=gated.address, slots=8)))
        first, second = await w.client(), await w.client()
        first.post()
        await gated.until(lambda: len(gated.running) == 1)
        second.post()
        await until(lambda: len(gated.gate.line))
        gated.gate.drain(lambda: None)
        await until(lambda: w.table.revisions["r1"].replicas["g"].draining)
        w.show(endpoint_row(w.row(replica_id="g", address=gated.address, slots=8, draining=True), w.row()))
        assert (await second.answer()).status == 200
        gated.finish()
        assert (await first.answer()).status == 200
        await gated.stop()


async def test_a_gate_of_the_release_before_has_no_line_and_is_asked_again() -> None:
    async with world() as w:
        w.replica.has_line = False
        w.replica.refusals = ["full", "full"]
        assert (await w.ask()).status == 200
        assert len(w.replica.requests) == 3
