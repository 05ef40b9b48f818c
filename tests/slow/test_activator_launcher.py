"""An agent that neither dies nor speaks: it is found, ended, and another takes its place; one that is only slow is
not.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from activator.launchers import process
from activator.launchers.process import ProcessLauncher
from pilotlight.processes import start_time

AGENT = """
import asyncio, sys
from pilotlight import frames
from runtime.wire import EngineEnvironment, NodeReport, ToAgent

async def main():
    async def attend(peer):
        engine = EngineEnvironment(engine="vllm", version="0", device="cpu")
        peer.send(NodeReport(node_id="n2", boot_id="b", environment=engine, memory_bytes=1))
        async for _ in peer:
            pass
    await frames.serve(sys.argv[1], ToAgent, attend)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(process, "REPORT_SECONDS", 0.05)
    made = Path(tempfile.mkdtemp(prefix="pl-lau-", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def launcher(folder: Path) -> ProcessLauncher:
    address = f"unix:{folder}/agent.sock"
    return ProcessLauncher(
        address=address,
        identity_file=folder / "agent.id",
        log_file=folder / "agent.log",
        environ=os.environ,
        command=(sys.executable, "-c", AGENT, address),
    )


@pytest.fixture
def mute(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An agent that is stopped: the kernel goes on accepting for it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/agent.sock")
        listener.listen(100)
        stopped = subprocess.Popen(["sleep", "600"], pass_fds=[listener.fileno()])
        listener.close()
        stopped.send_signal(signal.SIGSTOP)
        (folder / "agent.id").write_text(f"{stopped.pid} {start_time(stopped.pid)}")
        yield stopped
        stopped.kill()
        stopped.wait()


async def test_a_mute_agent_is_killed_and_replaced(
    folder: Path, mute: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "DEAF_SECONDS", 0.2)
    reaching = asyncio.ensure_future(launcher(folder).reach())
    assert await asyncio.to_thread(mute.wait, 10) == -signal.SIGKILL
    monkeypatch.setattr(process, "REPORT_SECONDS", 10.0)
    monkeypatch.setattr(process, "DEAF_SECONDS", 60.0)
    async with asyncio.timeout(20):
        stream, report = await reaching
    assert report.node_id == "n2"
    stream.close()
    pid = int((folder / "agent.id").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(os.waitpid, pid, 0)


async def test_a_mute_agent_has_its_time(
    folder: Path, mute: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what this process slept through is not counted: an hour passes between two tries."""
    tries = asyncio.Event()
    clock = iter(range(0, 10**9, 3600))
    monkeypatch.setattr(process, "REPORT_SECONDS", 0.0)
    monkeypatch.setattr(process, "DEAF_SECONDS", 5.0)

    class Asleep:
        @staticmethod
        def monotonic() -> float:
            now = float(next(clock))
            if now > 3 * 3600.0:
                tries.set()
            return now

    monkeypatch.setattr(process, "time", Asleep)
    reaching = asyncio.ensure_future(launcher(folder).reach())
    async with asyncio.timeout(10):
        await tries.wait()
    assert mute.poll() is None and not reaching.done()
    reaching.cancel()


def test_a_minute_is_enough_to_replace_one() -> None:
    from activator.state.nodes import SILENT_SECONDS

    longest = SILENT_SECONDS + 1.0 + process.DEAF_SECONDS + process.REPORT_SECONDS
    assert longest <= 55.0, "and a start has a few seconds left"
