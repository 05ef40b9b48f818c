"""What every launcher owes: one suite for `reach`, `is_dead` and `end`. Another launcher is one line in `place`."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from activator.launchers import Launcher
from activator.launchers.process import ProcessLauncher
from runtime.wire import NodeReport
from tests.fakes_activator import FakeLauncher

AGENT = """
import asyncio, os, sys
from pilotlight import frames
from runtime.wire import EngineEnvironment, NodeReport, ToAgent

async def main():
    async def attend(peer):
        engine = EngineEnvironment(engine="vllm", version="0", device="cpu")
        peer.send(NodeReport(node_id=str(os.getpid()), boot_id="b", environment=engine, memory_bytes=1))
        async for _ in peer:
            pass
    await frames.serve(sys.argv[1], ToAgent, attend)
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Place(Protocol):
    """Where a launcher of one kind has its node."""

    def launcher(self) -> Launcher: ...
    async def kill(self) -> None:
        """The agent dies."""


class OfThisMachine:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def launcher(self) -> Launcher:
        address = f"unix:{self.folder}/agent.sock"
        return ProcessLauncher(
            address=address,
            identity_file=self.folder / "agent.id",
            log_file=self.folder / "agent.log",
            environ=os.environ,
            command=(sys.executable, "-c", AGENT, address),
        )

    async def kill(self) -> None:
        pid = int((self.folder / "agent.id").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitpid, pid, 0)


class InThisProcess:
    def __init__(self, folder: Path) -> None:
        self.address = f"unix:{folder}/agent.sock"
        self.running = list[Any]()

    def launcher(self) -> Launcher:
        return FakeLauncher(self.address, self.running)

    async def kill(self) -> None:
        await self.running.pop().close()


@pytest.fixture(params=[OfThisMachine, InThisProcess])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    kind: Callable[[Path], Place] = request.param
    folder = Path(tempfile.mkdtemp(prefix="pl-lau-", dir="/tmp"))  # a socket's path is short
    yield kind(folder)
    shutil.rmtree(folder, ignore_errors=True)


async def reached(launcher: Launcher) -> tuple[Any, NodeReport]:
    async with asyncio.timeout(60):
        return await launcher.reach()


async def test_it_starts_an_agent_and_finds_it_again(place: Place) -> None:
    launcher = place.launcher()
    stream, report = await reached(launcher)
    stream.close()
    assert not await launcher.is_dead(), "a connection that breaks is no death"
    again, same = await reached(launcher)
    assert same.node_id == report.node_id
    again.close()
    await launcher.end()


async def test_its_successor_finds_the_agent_and_may_end_it(place: Place) -> None:
    first, second = place.launcher(), place.launcher()
    stream, report = await reached(first)
    other, same = await reached(second)
    assert same.node_id == report.node_id
    await second.end()
    assert await first.is_dead() and await second.is_dead()
    stream.close()
    other.close()


async def test_one_that_died_is_known_and_followed_by_another(place: Place) -> None:
    launcher = place.launcher()
    stream, report = await reached(launcher)
    await place.kill()
    assert await launcher.is_dead()
    stream.close()
    stream, next_one = await reached(launcher)
    assert next_one.node_id != report.node_id and not await launcher.is_dead()
    stream.close()
    await launcher.end()


async def test_an_end_is_an_end_also_twice_and_where_nothing_was_started(place: Place) -> None:
    launcher = place.launcher()
    await launcher.end()
    stream, _ = await reached(launcher)
    await launcher.end()
    assert await launcher.is_dead()
    await launcher.end()
    stream.close()
