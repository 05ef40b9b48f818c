"""The launcher that runs the node as a process of this machine: `python -m runtime`, in a session of its own. Step 7.

The agent outlives the activator. So a restarted activator connects first, and starts an agent only when nobody listens
and none is on its way. What must not happen is two agents on one state folder: they would end each other's replicas. A
file with the agent's identity, written the moment it is started, guards against that. The identity is pid and start
time, for a pid alone is reused. An agent that for `DEAF_SECONDS` neither listens nor says anything is killed and
replaced. Its death is its pidfd's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from pilotlight import children
from pilotlight.files import write_atomic
from pilotlight.frames import FrameError, FrameStream, split
from pilotlight.processes import start_time
from pilotlight.settings import Settings
from runtime.client import connect_agent
from runtime.wire import NodeReport

log = structlog.get_logger()

POLL_SECONDS = (
    0.02  # between two tries to connect to an agent that is starting: it has no other way to say that it listens
)
REPORT_SECONDS = 5.0  # for an agent's report
DEAF_SECONDS = 30.0  # with the 15 s after which a link is silent, within a minute
END_SECONDS = 6.0  # for an agent to end its replicas and itself
LEAST_LIFE_SECONDS = 10.0  # an agent that lives less makes the next wait
PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0, 15.0, 30.0)  # before a start, by how many short lives there were in a row
SECRETS = ("PILOTLIGHT_DATABASE_URL", "PGPASSWORD", "PGPASSFILE")  # nothing a node needs


class Process:
    """A process by its identity, not its pid alone; ours or not."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError."""
        self.pid, self._fd = pid, os.pidfd_open(pid)
        # then: whoever has the pid from here on is not whom the descriptor means, and is not signalled
        self.start_time = start_time(pid)

    def alive(self) -> bool:
        return self.start_time is not None and start_time(self.pid) == self.start_time

    async def ended(self, seconds: float) -> bool:
        """Wait for its end. False when the time was too short."""
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._fd, gone.set)
        try:
            await asyncio.wait_for(gone.wait(), seconds)
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._fd)
        return True

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, number)

    def close(self) -> None:
        os.close(self._fd)


class ProcessLauncher:
    """Provides this machine as the node."""

    def __init__(
        self, *, address: str, identity_file: Path, log_file: Path, environ: Mapping[str, str], command: Sequence[str]
    ) -> None:
        self._address = address
        self._identity_file = identity_file
        self._log_file = log_file
        self._environ = environ
        self._command = command
        self._agent: Process | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._started_at, self._early_ends = 0.0, 0

    @staticmethod
    def of(settings: Settings) -> ProcessLauncher:
        """This machine's node, in the settings' state folder."""
        paths = settings.paths
        also = children.names(settings.runtime.environment)
        environ = {
            name: value for name, value in children.environment(os.environ, also=also).items() if name not in SECRETS
        }
        return ProcessLauncher(
            address=paths.address("agent"),
            identity_file=paths.run / "agent.id",
            log_file=paths.logs / "agent.log",
            environ=environ | {"PILOTLIGHT_STATE_DIR": str(paths.state)},
            command=children.python("runtime"),
        )

    async def reach(self) -> tuple[FrameStream[Any], NodeReport]:
        """See `Launcher`.

        1. Somebody listens: that is the agent.
        2. Nobody listens, and no agent lives: start one.
        3. One lives and is about to listen: try again; one that has been deaf, or mute, for too long is ended.
        """
        deaf = 0.0  # seconds; what this process slept through itself is none of it
        while True:
            began = time.monotonic()
            try:  # 1
                async with asyncio.timeout(REPORT_SECONDS):
                    reached = await connect_agent(self._address)
                await self._identify()
                return reached
            except TimeoutError:
                reason = f"it accepts connections and says nothing for {REPORT_SECONDS:g} s"
                log.warning("the agent is mute", action="agent_mute", address=self._address)
                await self._identify()
            except (OSError, FrameError) as error:
                reason = str(error)
            if not self._is_running():
                await self._start()  # 2
                deaf = 0.0
            elif deaf > DEAF_SECONDS and self._agent:  # 3
                log.error(
                    "the agent does not listen; replacing it", action="agent_deaf", pid=self._agent.pid, error=reason
                )
                self._agent.signal(signal.SIGKILL)
                await self._agent.ended(END_SECONDS)
            await asyncio.sleep(POLL_SECONDS)
            deaf += min(time.monotonic() - began, REPORT_SECONDS + 1.0)

    async def is_dead(self) -> bool:
        """A process closes its sockets a moment before it is gone, so a moment is waited for it."""
        return self._agent is None or await self._agent.ended(1.0)

    async def end(self) -> None:
        if not self._is_running() or self._agent is None:
            return
        log.info("ending the agent", action="agent_end", pid=self._agent.pid)
        self._agent.signal(signal.SIGTERM)
        if not await self._agent.ended(END_SECONDS):
            log.error("the agent does not end; killing it", action="agent_kill", pid=self._agent.pid)
            self._agent.signal(signal.SIGKILL)
            await self._agent.ended(END_SECONDS)
        self._bury()
        self._identity_file.unlink(missing_ok=True)

    async def _start(self) -> None:
        self._bury()
        lived = time.monotonic() - self._started_at
        self._early_ends = self._early_ends + 1 if self._started_at and lived < LEAST_LIFE_SECONDS else 0
        pause = PAUSES[min(self._early_ends, len(PAUSES) - 1)]
        if pause:
            log.warning(
                "the agent ended soon after its start", action="agent_pause", seconds=pause, log=str(self._log_file)
            )
            await asyncio.sleep(pause)
        self._spawn()

    def _spawn(self) -> None:
        with self._log_file.open("ab") as output:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(self._environ),
                cwd=children.FOLDER,
                start_new_session=True,
            )
        self._started_at = time.monotonic()
        self._agent = Process(self._child.pid)
        try:
            write_atomic(self._identity_file, f"{self._agent.pid} {self._agent.start_time}".encode())
        except (
            OSError
        ) as error:  # an activator that comes after us may start a second one, which ends at the first one's lock
            log.warning(
                "an agent's identity is not kept", action="agent_unkept", pid=self._agent.pid, reason=str(error)
            )
        log.info("agent started", action="agent_start", pid=self._agent.pid)

    def _is_running(self) -> bool:
        """Is there an agent, listening or not, ours or our predecessor's?"""
        if self._agent is None:
            with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
                pid, started = map(int, self._identity_file.read_text().split())
                found = Process(pid)
                if found.start_time == started:
                    self._agent = found
                else:
                    found.close()
        return self._agent is not None and self._agent.alive()

    async def _identify(self) -> None:
        """Whose agent it is that listens: the one in the file, or one started by hand."""
        if self._is_running():
            return
        self._bury()
        with contextlib.suppress(OSError):
            pid = await peer_pid(self._address)
            self._agent = Process(pid) if pid != os.getpid() else None

    def _bury(self) -> None:
        if self._agent is not None:
            self._agent.close()
            self._agent = None
        if self._child is not None:
            self._child.poll()


async def peer_pid(address: str) -> int:
    """The process that listens at a Unix address. Raises OSError."""
    _scheme, path, _port = split(address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        await asyncio.get_running_loop().sock_connect(probe, path)
        pid, _uid, _gid = struct.unpack(
            "3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        )
        return int(pid)
