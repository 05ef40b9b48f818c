"""What the engine core is given before it is forked: how it runs, what it counts, and what it reports. Step 8.

The engine core is a fork of the replica's API process, so everything here is set in that one, through `seams.py`, and
inherited. On CPU it runs the model itself: one process less. The failures to survive: an engine core that fails while
it is built sends its own words to the agent. One whose API process is gone ends with it.
"""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import time
from collections.abc import Callable
from typing import Any

from vllm.v1.executor.uniproc_executor import UniProcExecutor

from pilotlight.process_death import end_with_parent
from runtime.control import Control, Failed
from runtime.engine import fork_state, seams
from runtime.engine.parking import add_give_back_to_the_engine_core
from runtime.engine.rehearsed import set_num_threads
from runtime.failure import failure
from runtime.loader.formats import report
from runtime.loader.mapped import unpacked
from runtime.serving import log_marks
from runtime.serving.phases import Phases
from runtime.serving.pulse import Pulse

STEPS_BEFORE_PACKING = 8  # the canary's, and a first request's first tokens


def prepare(
    device: str, threads: int, *, control: Control, phases: Phases, pulse: Pulse, replica: fork_state.Replica
) -> None:
    """All of it, once, before the engine is made."""
    _fork_instead_of_spawn()
    _run_the_model_here(device, threads, control, pulse, replica)
    _count_steps(pulse)
    _time_the_load(phases)
    add_give_back_to_the_engine_core()


def _fork_instead_of_spawn() -> None:
    """vLLM's CPU platform asks for spawn, which would import everything again; on a GPU fork is its default."""
    context = multiprocessing.get_context("fork")
    seams.replace("how processes are made", lambda choose: lambda method=None: context)


def _run_the_model_here(device: str, threads: int, control: Control, pulse: Pulse, replica: fork_state.Replica) -> None:
    """One process less on CPU, threads set where they compute, its pulse, and the engine core's own failure told to the
    agent.
    """
    if device == "cpu":
        # The platform turns `uni` into `mp` because of OpenMP's environment; here the thread count is set in the child.
        seams.replace("executor", lambda choose: staticmethod(lambda vllm_config: UniProcExecutor))
        _pack_between_steps()

    def as_ours(original: Callable[..., None]) -> staticmethod[..., None]:
        return staticmethod(functools.partial(run, original))

    def run(original: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        end_with_parent()
        fork_state.adopt_process(replica)
        log_marks.say(replica.replica_id, "engine core")
        if device == "cpu":
            set_num_threads(threads)
        pulse.begin_in_the_engine_core()
        try:
            original(*args, **kwargs)
        except Exception as error:
            control.send(Failed(reason=failure(error)))
            raise

    seams.replace("engine core process", as_ours)


def _count_steps(pulse: Pulse) -> None:
    """One that executed nothing does not count: an engine that turns in place does not get on."""

    def counting(step: Callable[[Any], bool]) -> Callable[[Any], bool]:
        def counted(core: Any) -> bool:
            executed = step(core)
            if executed:
                pulse.stepped()
            return executed

        return counted

    seams.replace("engine step", counting)


def _pack_between_steps() -> None:
    """Once there is traffic, pack a mapped layer after each step: the first tokens do not wait for it, the many do not
    miss it.
    """
    steps = itertools.count()

    def packing(step: Callable[[Any], bool]) -> Callable[[Any], bool]:
        def step_and_pack(core: Any) -> bool:
            executed = step(core)
            if unpacked.layers and next(steps) >= STEPS_BEFORE_PACKING:
                unpacked.pack_one()
            return executed

        return step_and_pack

    seams.replace("engine step", packing)


def _time_the_load(phases: Phases) -> None:
    """The phase `load`, reported by the process that loads."""

    def timed(original: Callable[..., None]) -> Callable[..., None]:
        def load_model(worker: Any, **kwargs: Any) -> None:
            begin = time.monotonic()
            original(worker, **kwargs)
            phases.add("load", begin, note=report.note, load=report.outcome)

        return load_model

    seams.replace("load", timed)
