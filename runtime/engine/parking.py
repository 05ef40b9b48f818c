"""A parked replica: its engine stays built, its memory is given back, and when it is unparked it serves again. Step 8.

    serving ──park──► gate drains ──nothing runs──► memory given back ──► Parked
       ▲                  │                                                 │
       │    unpark: it is taken back, nothing was given back yet            │ unpark
       └──────────────────┴───────────────◄── canary ◄── engine woken ◄─────┘

On CPU the KV cache's pages go back to the kernel, and packed layers to the mapped weights they were made from. Both
processes trim their allocators. On a GPU it is vLLM's own sleep, level 1. Level 2 would also drop the weights from
memory and load them again on the way up, as the rung `standby` does from its start. The gate is shut before anything is
given back, and opened only after the canary.

What must survive is a request that is still running: nothing is given back before it has ended. A park may also be
taken back meanwhile. An engine that cannot park ends the replica with the reason, since one that gave back half of its
memory must not serve.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from vllm.v1.engine.async_llm import AsyncLLM

from runtime.control import Control, Failed, Parked, Serving
from runtime.engine import seams
from runtime.engine.pages import kv_pages
from runtime.errors import CanaryMismatch
from runtime.failure import failure
from runtime.loader.mapped import unpacked
from runtime.serving.gate import Gate
from runtime.serving.phases import Phases

GIVE_BACK = "pilotlight_give_back"  # what the engine core is asked for, by name


def add_give_back_to_the_engine_core() -> None:
    """Before the engine core is forked: what it has to know to give its memory back."""
    seams.replace("give back", lambda nothing: lambda core: give_back())


def give_back() -> int:
    """In the engine core, between two steps, when nothing runs. Returns the bytes of KV cache given back."""
    freed = kv_pages.give_back()
    unpacked.unpack()
    trim()
    return freed


def trim() -> None:
    """Garbage, and the free memory of the allocator, back to the kernel."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


class Parking:
    """In the API process. `park` and `unpark` come from the agent, in that order and alternating."""

    def __init__(
        self,
        *,
        engine: AsyncLLM,
        device: str,
        gate: Gate,
        control: Control,
        phases: Phases,
        canary: Callable[[], Awaitable[None]],
        address: str,
    ) -> None:
        self._engine = engine
        self._device = device
        self._gate = gate
        self._control = control
        self._phases = phases
        self._canary = canary
        self._address = address
        self._empty = asyncio.Event()
        self._parking: asyncio.Task[None] | None = None
        self._unparking: asyncio.Task[None] | None = None

    def park(self) -> None:
        """Give the memory back as soon as nothing runs any more."""
        self._empty = asyncio.Event()
        self._gate.drain(self._empty.set)
        self._parking = asyncio.ensure_future(self._or_end(self._park(self._empty)))

    def unpark(self, asked_at: float) -> None:
        """Serve again."""
        self._unparking = asyncio.ensure_future(self._or_end(self._unpark(self._parking, asked_at)))

    async def _park(self, empty: asyncio.Event) -> None:
        await empty.wait()
        if self._device == "cuda":
            await self._engine.sleep(1, mode="wait")
        else:
            await self._engine.pause_generation(mode="wait", clear_cache=True)
            await self._engine.engine_core.call_utility_async(GIVE_BACK)
            await self._engine.resume_generation()  # its door is shut; only the canary comes in
        trim()
        self._control.send(Parked())

    async def _unpark(self, parking: asyncio.Task[None] | None, asked_at: float) -> None:
        """
        1. Something still runs, so nothing was given back: the park is taken back.
        2. Else it is finished first, and undone.
        3. The canary, behind a door that is still shut.
        """
        self._phases.add("spawn", asked_at)
        if parking is not None and not self._empty.is_set():  # 1
            parking.cancel()
        elif parking is not None:
            await parking  # 2
            with self._phases.phase("init"):
                if self._device == "cuda":
                    await self._engine.wake_up()
            await self._canary()  # 3
        self._parking = None
        self._gate.reopen()
        self._control.send(Serving(address=self._address))

    async def _or_end(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            traceback.print_exc()
            self._control.sock.setblocking(True)
            self._control.send(Failed(reason=failure(error), mismatch=isinstance(error, CanaryMismatch)))
            os._exit(1)
