"""Who beats lives; who is stopped is killed in time; and nothing is held against anybody for the listener's own
sleep.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pilotlight.database.probe import answers
from pilotlight.watchdog import START_SECONDS, Notifier, Said, Watchdog, silent

BEATS = """
import asyncio
from pilotlight.watchdog import Notifier

async def main():
    Notifier.of_starter().keep()
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Watched:
    """A process that beats, and the watchdog that hears it; the test is its clock."""

    def __init__(self, folder: Path) -> None:
        self.killed: list[int] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.dog = Watchdog(folder / "w.sock", running=self._running, silent_seconds=10.0, on_silent=self.killed.append)
        self.process = subprocess.Popen([sys.executable, "-c", BEATS], env=os.environ | self.dog.environ)
        self.spoke = asyncio.Event()
        asyncio.get_running_loop().add_reader(self.dog._socket, self._hear)

    def _running(self) -> list[int]:
        return [self.process.pid] if self.process else []

    def _hear(self) -> None:
        self.dog.hear()
        assert self.process
        if self.dog._said.get(self.process.pid, Said(0.0)).spoken:
            self.spoke.set()


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    made = Watched(tmp_path)
    yield made
    asyncio.get_running_loop().remove_reader(made.dog._socket)
    assert made.process
    made.process.kill()
    await asyncio.to_thread(made.process.wait)


async def test_one_that_is_stopped_is_killed_after_its_seconds(watched: Watched) -> None:
    watched.dog.look(0.0)
    async with asyncio.timeout(20):
        await watched.spoke.wait()
    assert watched.process
    watched.process.send_signal(signal.SIGSTOP)
    for second in range(1, 10):
        watched.dog.look(float(second))
    assert watched.killed == []
    for second in range(10, 13):
        watched.dog.look(float(second))
    assert watched.killed == [watched.process.pid]
    assert await asyncio.to_thread(watched.process.wait, 10) == -signal.SIGKILL


async def test_a_number_whose_process_is_gone_is_nobodys_and_is_not_killed(watched: Watched) -> None:
    """Its holder may go on naming it, as where no successor could be started: the number may be another process's by
    then.
    """
    assert watched.process
    watched.dog.look(0.0)
    watched.process.kill()
    await asyncio.to_thread(watched.process.wait)
    for second in range(1, int(START_SECONDS) * 2):
        watched.dog.look(float(second))
    assert watched.killed == []


async def test_a_listener_that_slept_kills_nobody(watched: Watched) -> None:
    watched.dog.look(0.0)
    async with asyncio.timeout(20):
        await watched.spoke.wait()
    watched.dog.look(3600.0)
    watched.dog.look(7200.0)
    assert watched.killed == []


def test_before_its_first_word_a_process_has_time_to_start() -> None:
    said = {1: Said(0.0), 2: Said(0.0, spoken=True)}
    assert silent(said, 10.0, 10.0) == []
    assert silent(said, 11.0, 10.0) == [2]
    assert silent(said, START_SECONDS, 10.0) == [2]
    assert silent(said, START_SECONDS + 1, 10.0) == [1, 2]


async def test_it_speaks_to_systemd_and_what_it_starts_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(30)
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notifier = Notifier.of_starter()
        assert "NOTIFY_SOCKET" not in os.environ
        notifier.say("READY=1")
        notifier.keep()
        assert [systemd.recv(99), systemd.recv(99)] == [b"READY=1", b"WATCHDOG=1"]


async def test_without_a_listener_nothing_is_said_and_nothing_breaks(tmp_path: Path) -> None:
    Notifier.of_starter().keep()
    Notifier(str(tmp_path / "nobody")).keep()


async def test_a_postgres_that_is_stopped_accepts_and_does_not_answer(tmp_path: Path) -> None:
    path = tmp_path / "pg"
    assert not await answers(path, 0.1)
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(path))
        stopped.listen()
        assert not await answers(path, 0.1)
    path.unlink()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(8) == b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
        writer.write(b"N")

    async with await asyncio.start_unix_server(answer, str(path)):
        assert await answers(path, 5.0)
