"""A forked replica becomes vLLM's own OpenAI server behind our gate. Step 8, and 11 to 12 from then on.

It runs in the child of a rehearsed standby, in two processes: this one (HTTP, tokenizer, detokenizer, journal) and the
engine core it forks. A failure anywhere in the build is sent to the agent in the engine's own words before the process
ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import uvicorn
import uvloop
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args
from vllm.platforms import current_platform
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM

from runtime.control import (
    Control,
    Depth,
    DrainNow,
    Failed,
    Fork,
    Journaled,
    LoadOutcome,
    ParkNow,
    Serving,
    UnparkNow,
)
from runtime.engine import arguments as engine_arguments
from runtime.engine import caches, canary, engine_core, fork_state, seams, vocabulary
from runtime.engine.graphs import capture_when_idle
from runtime.engine.guarding import Guarded
from runtime.engine.metering import Abandoned, meter, of_the_canary
from runtime.engine.parallel_tokenizer import load_the_tokenizer_beside_the_engine_core
from runtime.engine.parking import Parking
from runtime.engine.rehearsed import Rehearsal
from runtime.loader import streamed  # noqa: F401  (its load format is known to the forks)
from runtime.loader.formats import report
from runtime.serving.gate import Gate
from runtime.serving.phases import Phases
from runtime.serving.pulse import Beats, Pulse
from runtime.serving.usage import Journal
from runtime.tasks import GENERATE, canary_of


def serve(rehearsal: Rehearsal, fork: Fork, control: Control, phases: Phases, began: float) -> None:
    """Build the engine and serve until told to stop. `began`: monotonic seconds at which the phase `init` begins."""
    seams.uses.own()
    replica = fork_state.Replica(fork.replica_id, fork.folder)
    fork_state.adopt_replica(replica)
    pulse = Pulse()
    beats = Beats(control, pulse)
    beats.begin()
    os.environ.update(caches_of(rehearsal, fork))
    os.environ["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] = "0"  # a host that is allowed would lead to one that is not
    engine_core.prepare(rehearsal.device, fork.threads, control=control, phases=phases, pulse=pulse, replica=replica)
    if engine_arguments.graphs_when_idle(fork, device=rehearsal.device):
        capture_when_idle()
    if fork.baked:
        vocabulary.remember(Path(fork.baked) / f"vocabulary-{rehearsal.version}.json", fork.snapshot)
    args = arguments(rehearsal, fork)
    if reason := engine_arguments.own_loader_reason(fork):  # else our loaders report
        report.set(LoadOutcome.PLAIN_START, reason)
    uvloop.run(_serve(rehearsal, args, fork, control, phases, began, beats))


def arguments(rehearsal: Rehearsal, fork: Fork) -> argparse.Namespace:
    """vLLM's serve arguments. Raises ValueError, SystemExit."""
    given = engine_arguments.arguments(
        fork, device=rehearsal.device, version=rehearsal.version, seed=fork_state.engine_seed()
    )
    args: argparse.Namespace = rehearsal.parser.parse_args(engine_arguments.words(given))
    validate_parsed_serve_args(args)
    return args


def hardware(device: str) -> str:
    """What computes, as the key of a baked copy and of vLLM's caches has it. A driver says so without initialising its
    device.
    """
    if device == "cuda":
        return f"{current_platform.get_device_name()} {current_platform.get_device_capability()}"
    return torch.backends.cpu.get_cpu_capability()


def caches_of(rehearsal: Rehearsal, fork: Fork) -> dict[str, str]:
    """Where vLLM's caches lie."""
    return caches.environment(
        Path(fork.baked),
        device=rehearsal.device,
        hardware=hardware(rehearsal.device),
        engine=rehearsal.version,
        torch=torch.__version__,
        arguments=engine_arguments.revisions(fork),
    )


async def _serve(
    rehearsal: Rehearsal,
    args: argparse.Namespace,
    fork: Fork,
    control: Control,
    phases: Phases,
    began: float,
    beats: Beats,
) -> None:
    """Engine, application, gate and server, in this order; then the canary decides whether the replica is ready."""
    loop = asyncio.get_running_loop()
    journal = Journal(fork.journal, fork.replica_id, grown=lambda: _tell(control, Journaled()), later=loop.call_later)
    meter(journal)
    engine = _build_engine(args)
    beats.follow(loop, in_work=engine.output_processor.must_step, counts=journal.running)
    app = await _application(rehearsal, args, fork, engine)
    gate = Gate(
        app,
        slots=fork.slots,
        journal=journal,
        on_depth=lambda depth: _tell(control, Depth(in_flight=depth)),
        on_left=Abandoned(engine, journal).left,
    )
    record = caches.of_this_hardware(Path(fork.canary), hardware(rehearsal.device))

    async def check_canary() -> None:
        await _canary(engine, journal, fork, phases, record)

    path = f"{fork.folder}/s"
    with _listener(path) as listener:
        server = _Server(_http(gate))
        app.state.server = server  # vLLM's error handlers look at it
        address = f"unix:{path}"
        parking = Parking(
            engine=engine,
            device=rehearsal.device,
            gate=gate,
            control=control,
            phases=phases,
            canary=check_canary,
            address=address,
        )
        _obey(control, gate, journal, server, parking)
        _end_with_the_engine_core(engine, journal, control)
        serving = asyncio.ensure_future(server.serve([listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0)
        phases.add("init", began, note=seams.uses.note())
        await check_canary()
        control.send(Serving(address=address))
        seams.uses.write(Path(fork.folder) / "seams.json")
        await serving


def _build_engine(args: argparse.Namespace) -> Guarded:
    """vLLM's engine; its core is forked here."""
    engine_args = AsyncEngineArgs.from_cli_args(args)
    config = engine_args.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    load_the_tokenizer_beside_the_engine_core(log_stats=not engine_args.disable_log_stats)
    engine: Guarded = Guarded.from_vllm_config(
        config, usage_context=UsageContext.OPENAI_API_SERVER, disable_log_stats=engine_args.disable_log_stats
    )
    return engine


async def _application(rehearsal: Rehearsal, args: argparse.Namespace, fork: Fork, engine: Guarded) -> Any:
    """vLLM's own, with the routes of this task: those of text were rehearsed, others depend on the model."""
    tasks = (GENERATE,) if fork.task == GENERATE else await engine.get_supported_tasks()
    app = rehearsal.app if fork.task == GENERATE else build_app(args, tasks, engine.model_config)
    app.state.args = args
    await init_app_state(engine, app.state, args, tasks)
    return app


@contextlib.contextmanager
def _listener(path: str) -> Iterator[socket.socket]:
    """A Unix socket at this path, for nobody else on this machine."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        Path(path).chmod(0o600)
        yield listener


def _http(gate: Gate) -> uvicorn.Config:
    return uvicorn.Config(
        gate,
        http="httptools",
        loop="none",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,  # what is set here clears the caches of 400 loggers, three times (10 ms)
        log_level=None,
        server_header=False,
    )


async def _canary(engine: AsyncLLM, journal: Journal, fork: Fork, phases: Phases, record: Path) -> None:
    """Before every `ready`, from whatever rung. Raises CanaryMismatch, MeteringBroken."""
    expected = canary_of(fork.task)
    with (
        phases.phase("canary"),
        of_the_canary(engine, journal, asked=expected.read, made=expected.made) as request_id,
    ):
        await canary.check(engine, canary.CANARIES[fork.task], record, request_id)


class _Server(uvicorn.Server):
    """The agent ends a replica, not a signal to its server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _tell(control: Control, frame: Depth | Journaled) -> None:
    """A notice the agent can do without: it reads journal and depth once a second in any case."""
    with contextlib.suppress(BlockingIOError):
        control.send(frame)


def _obey(control: Control, gate: Gate, journal: Journal, server: uvicorn.Server, parking: Parking) -> None:
    """Drain, park and serve again when told; end with the agent: a replica nobody watches would be left behind.

    However it ends, short of kill -9: what still runs is written down as far as it came.
    """
    control.sock.setblocking(False)
    loop = asyncio.get_running_loop()

    def leave() -> None:
        server.should_exit = True  # uvicorn flushes and closes its connections first

    def cut() -> None:
        journal.end("abort")
        os.killpg(0, signal.SIGKILL)

    def heard() -> None:
        got = control.receive()
        if got is None:
            cut()
        elif isinstance(got[0], DrainNow):
            gate.drain(leave)
            if got[0].seconds is not None:
                loop.call_later(got[0].seconds, cut)
        elif isinstance(got[0], ParkNow):
            parking.park()
        elif isinstance(got[0], UnparkNow):
            parking.unpark(got[0].asked_at)

    loop.add_reader(control.sock, heard)
    loop.add_signal_handler(signal.SIGTERM, cut)


def _end_with_the_engine_core(engine: AsyncLLM, journal: Journal, control: Control) -> None:
    """Without its engine core a replica only gives errors; the agent ends what is left and starts another."""
    loop = asyncio.get_running_loop()

    def died(process: Any) -> None:
        process.join()
        journal.end("error")
        control.send(
            Failed(
                reason=f"the engine core ended unexpectedly (exit code {process.exitcode}; -9: killed, or out of memory)"
            )
        )
        os._exit(1)

    for process in engine.engine_core.resources.engine_manager.processes:
        loop.add_reader(process.sentinel, died, process)
