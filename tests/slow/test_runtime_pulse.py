"""A replica's pulse: it goes on whatever the loop does, never waits for a reader, and is seen to stop with the engine
core.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from runtime.control import Beat, Control, FromReplica, ToReplica
from runtime.serving.pulse import COUNTS_IN_A_BEAT, Beats, Pulse
from runtime.wire import RequestCount
from tests.pipes import heard


@pytest.fixture
def ends() -> Iterator[tuple[Control, Control]]:
    """The replica's end and the agent's."""
    ours, theirs = Control.pair()
    theirs.setblocking(False)
    with ours, theirs:
        yield Control(ours, ToReplica), Control(theirs, FromReplica)


def test_before_there_is_an_engine_it_says_that_it_lives(ends: tuple[Control, Control]) -> None:
    assert Beats(ends[0], Pulse()).beat(1.0)
    assert list(ends[1].waiting()) == [Beat()]


def test_what_a_forked_engine_core_does_is_seen_here(ends: tuple[Control, Control]) -> None:
    pulse = Pulse()
    done, doing = os.pipe()
    child = os.fork()
    if child == 0:
        pulse.begin_in_the_engine_core()
        for _ in range(3):
            pulse.stepped()
        while not pulse.core_beats:
            os.sched_yield()
        os.write(doing, b"x")
        signal.pause()
    os.close(doing)
    assert heard(done) == b"x"
    Beats(ends[0], pulse).beat(1.0)
    (beat,) = ends[1].waiting()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(done)
    assert (beat.steps, beat.core_beats) == (3, 1)


def test_a_socket_nobody_reads_loses_beats_and_keeps_room_for_what_must_be_said(ends: tuple[Control, Control]) -> None:
    beats = Beats(ends[0], Pulse())
    assert all(beats.beat(1.0) for _ in range(10_000))
    ends[0].sock.setblocking(False)
    for _ in range(20):
        assert ends[0].send(Beat(steps=1))  # raises where there is no room
    assert sum(beat.steps for beat in ends[1].waiting()) == 20


async def test_counts_that_no_packet_holds_come_in_several(ends: tuple[Control, Control]) -> None:
    counts = [
        RequestCount(request_id=f"{n:032x}", input_tokens=1 << 20, cached_tokens=1 << 20, output_tokens=1 << 20)
        for n in range(1000)
    ]
    beats = Beats(ends[0], Pulse())
    beats.follow(asyncio.get_running_loop(), in_work=lambda: 1000, counts=lambda: counts)
    reading = asyncio.create_task(asyncio.to_thread(_read, ends[1].sock, 3))
    assert await asyncio.to_thread(beats.beat, 1.0)
    heard = await reading
    assert [len(beat.counts) for beat in heard] == [COUNTS_IN_A_BEAT, COUNTS_IN_A_BEAT, 1000 - 2 * COUNTS_IN_A_BEAT]
    assert [count for beat in heard for count in beat.counts] == counts
    assert {beat.in_work for beat in heard} == {1000}


async def test_what_cannot_be_counted_is_no_hang(ends: tuple[Control, Control]) -> None:
    def broken() -> list[RequestCount]:
        raise ValueError("a mistake of ours")

    told: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: told.append(context["exception"]))
    beats = Beats(ends[0], Pulse())
    beats.follow(loop, in_work=lambda: 3, counts=broken)
    for _ in range(3):
        await asyncio.to_thread(beats.beat, 1.0)
        await asyncio.sleep(0)
    assert [beat.loop_seconds for beat in ends[1].waiting()][-1] == 0.0 and len(told) >= 2


def _read(sock: socket.socket, frames: int) -> list[Beat]:
    sock.settimeout(5)
    control, found = Control(sock, FromReplica), []
    for _ in range(frames):
        got = control.receive()
        assert got is not None
        found.append(got[0])
    return found


async def test_a_loop_that_stands_still_is_told_and_so_is_its_end(ends: tuple[Control, Control]) -> None:
    beats = Beats(ends[0], Pulse())
    beats.follow(asyncio.get_running_loop(), in_work=lambda: 0)
    for _ in range(4):
        beats.beat(1.0)  # the loop does not turn between these
    assert [beat.loop_seconds for beat in ends[1].waiting()] == [0.0, 1.0, 2.0, 3.0]
    beats.beat(3600.0)  # this process was stopped: not the loop's fault
    assert [beat.loop_seconds for beat in ends[1].waiting()] == [5.0]
    await asyncio.sleep(0)
    beats.beat(1.0)
    assert [beat.loop_seconds for beat in ends[1].waiting()] == [0.0]


def test_it_tells_where_the_agent_is_gone(ends: tuple[Control, Control]) -> None:
    ends[1].close()
    assert not Beats(ends[0], Pulse()).beat(1.0)


def test_a_replica_ends_itself_within_a_beat_once_its_agent_is_gone(ends: tuple[Control, Control]) -> None:
    child = os.fork()
    if child == 0:
        os.setsid()
        ends[1].close()
        Beats(ends[0], Pulse()).begin()
        signal.pause()  # an event loop that does not turn, or a build
    ends[1].close()
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
