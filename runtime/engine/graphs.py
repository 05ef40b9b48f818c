"""CUDA graphs captured once nothing runs: a replica on a GPU may answer before, step by step. Step 8.

Capturing takes vLLM 5 to 20 s of every start. A revision with the engine argument `graphs-when-idle` puts it off.
vLLM's dispatchers run a step eagerly while they know of no captured graph, so nothing else has to change. The capture
comes when the engine has had nothing to do for a while; a request that arrives meanwhile waits for its end.

What must survive is an engine that sleeps, whose weights are not there to be captured with. Somebody may also be
waiting for the engine to be idle.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from typing import Any

from runtime.engine import seams

CAPTURE = "pilotlight_capture_graphs"  # what the workers are asked for, by name
IDLE_SECONDS = 2.0

log = logging.getLogger("vllm.pilotlight")


def capture_when_idle() -> None:
    """For the one engine this process will build, in whichever process its workers are."""
    for runner in ("capture", "capture of the second runner"):
        seams.replace(runner, put_off)
    seams.replace("capture by name", lambda nothing: lambda worker: capture(worker.model_runner))
    seams.replace("engine core's wait", lambda wait: when_idle(wait, IDLE_SECONDS))


def put_off(capture_model: Callable[..., int]) -> Callable[..., int]:
    """`capture_model`, which leaves the runner eager and remembers what is to be done. Returns 0: no memory is taken
    yet.

    A capture that only measures (it is told so by an argument) is made at once.
    """

    def later(runner: Any, **how: Any) -> int:
        if how:
            return capture_model(runner, **how)
        # the second runner has none: its own knows what is captured
        dispatcher = getattr(runner, "cudagraph_dispatcher", None)
        if dispatcher is not None and dispatcher.keys_initialized:
            dispatcher.keys_initialized = False
            runner.put_off = lambda: _known_again(dispatcher, lambda: capture_model(runner))
        else:
            runner.put_off = lambda: capture_model(runner)
        return 0

    return later


def _known_again(dispatcher: Any, capture_model: Callable[[], int]) -> int:
    dispatcher.keys_initialized = True
    return capture_model()


def capture(runner: Any) -> int:
    """Do what was put off. Returns the bytes of memory the graphs take; 0 where nothing was put off, as with
    enforce-eager.
    """
    waiting = getattr(runner, "put_off", None)
    if waiting is None:
        return 0
    del runner.put_off
    begin = time.monotonic()
    captured: int = waiting()
    log.info("CUDA graphs: captured when idle, %.1f s, %d MiB", time.monotonic() - begin, captured >> 20)
    return captured


def when_idle(process_input_queue: Callable[[Any], None], seconds: float) -> Callable[[Any], None]:
    """The engine core's wait for work, which has the graphs captured the first time that nothing comes for so long."""
    due = [True]

    def wait(core: Any) -> None:
        if due and _has_nothing_to_do(core):
            try:
                request = core.input_queue.get(timeout=seconds)
            except queue.Empty:
                due.clear()
                core.model_executor.collective_rpc(CAPTURE)
            else:
                core._handle_client_request(*request)
        process_input_queue(core)

    return wait


def _has_nothing_to_do(core: Any) -> bool:
    """Nor is anybody told by its wait that it is idle."""
    awake = core.is_running() and not core.model_executor.is_sleeping
    return bool(awake and core.process_input_queue_block and not core.has_work() and not core._idle_state_callbacks)
