"""A replica's pulse: what it says of itself once a second, whatever its event loop and its engine do. Step 8.

The API process and its engine core share two words of memory. They count the steps of the engine, and how often a
thread of the engine core has woken. A thread of the API process sends both as a `Beat`. It takes no lock that others
hold and waits for nobody. It survives a full socket (the beat is lost) and a loop that stands still (that is what it
reports). Where the agent is gone it ends the replica, which nobody watches any more: in the middle of a build, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from runtime.control import Beat, Control
from runtime.wire import RequestCount

BEAT_SECONDS = 1.0
LONGEST_TURN = 2.0  # seconds that one beat adds to a loop's silence at most: this process may have been stopped itself
TURN_SECONDS = 0.2  # that a beat waits for a loop that turns
COUNTS_IN_A_BEAT = 400  # some 130 bytes each, in a packet of 128 KiB
STEPS, CORE = 0, 1  # the shared words

Counts = Callable[[], Sequence[RequestCount]]


class Pulse:
    """Made before the engine core is forked; written there, read in the API process. Each word has one writer."""

    def __init__(self) -> None:
        self._words = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")

    @property
    def steps(self) -> int:
        return self._words[STEPS]

    @property
    def core_beats(self) -> int:
        return self._words[CORE]

    def stepped(self) -> None:
        """In the engine core: a step is done."""
        self._words[STEPS] += 1

    def begin_in_the_engine_core(self) -> None:
        """In the engine core, before its engine is built: beat from now on."""
        threading.Thread(target=self._beat, name="pilotlight pulse", daemon=True).start()

    def _beat(self) -> None:
        while True:
            self._words[CORE] += 1
            time.sleep(BEAT_SECONDS)


class Beats:
    """The thread in the API process. Before `follow` it has neither a loop nor requests to tell of."""

    def __init__(self, control: Control, pulse: Pulse) -> None:
        self._control, self._pulse = control, pulse
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turned = threading.Event()
        self._turned.set()
        self._loop_seconds = 0.0
        self._in_work = 0
        self._counts: tuple[RequestCount, ...] = ()

    def begin(self) -> None:
        threading.Thread(target=self._run, name="pilotlight beats", daemon=True).start()

    def follow(self, loop: asyncio.AbstractEventLoop, *, in_work: Callable[[], int], counts: Counts = tuple) -> None:
        """`in_work`, `counts`: requests the engine works on. Both are called by the loop, which alone changes them."""
        self._look, self._loop = (in_work, counts), loop

    def beat(self, seconds: float) -> bool:
        """Say all there is, `seconds` after the last time. False where the agent is gone."""
        if self._loop is not None:
            self._look_at_the_loop(self._loop, seconds)
        return all(self._control.offer(frame) for frame in self._frames())

    def _frames(self) -> Iterator[Beat]:
        counts = self._counts
        for first in range(0, max(1, len(counts)), COUNTS_IN_A_BEAT):
            yield Beat(
                steps=self._pulse.steps,
                core_beats=self._pulse.core_beats,
                in_work=self._in_work,
                loop_seconds=self._loop_seconds,
                counts=counts[first : first + COUNTS_IN_A_BEAT],
                rest=first > 0,
            )

    def _look_at_the_loop(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """Has it turned since it was last asked to? Then ask again, and give it a moment to say what is in work now."""
        if self._turned.is_set():
            self._turned.clear()
            self._loop_seconds = 0.0
            with contextlib.suppress(RuntimeError):  # it is closed: this process ends
                loop.call_soon_threadsafe(self._turns)
        else:
            self._loop_seconds += min(LONGEST_TURN, seconds)
        if self._turned.wait(TURN_SECONDS):
            self._loop_seconds = 0.0

    def _turns(self) -> None:
        in_work, counts = self._look
        try:
            self._in_work, self._counts = in_work(), tuple(counts())
        finally:
            self._turned.set()

    def _run(self) -> None:
        last = time.monotonic()
        while True:
            now = time.monotonic()
            if not self.beat(now - last):
                os.killpg(0, signal.SIGKILL)
            last = now
            time.sleep(BEAT_SECONDS)
