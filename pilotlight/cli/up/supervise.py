"""One process of the installation, supervised: started again when it dies, after a pause that grows.

What a dead one leaves in its session is killed before the next is started: it could hold the port that the next needs.
The failures to survive: the death of `up` itself, and a machine that refuses a new process or its log for the moment.
In the first case the kernel tells each child to stop (PR_SET_PDEATHSIG). In the second (no memory, no descriptor, a
full disk) the machine is asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from types import MappingProxyType

from pilotlight import children
from pilotlight.cli.exit_codes import explain_os_error, say
from pilotlight.process_death import die_with_parent
from pilotlight.settings import PREFIX, Section, Settings
from pilotlight.settings_file import NO_FILE

BEYOND_DRAIN_SECONDS = {"router": 10.0, "activator": 15.0}  # to end what the drain left, and to write down the rest
LONGEST_PAUSE = 5.0  # seconds, before a process that dies again and again is started anew
RETRY_SECONDS = 1.0  # after the machine refused
STOP_SECONDS = {"router.admin": 5.0, "router.ledger": 10.0}


class Child:
    """One supervised process: started again when it dies, until `stop`."""

    def __init__(self, module: str, settings: Settings, *, notify: Mapping[str, str] = MappingProxyType({})) -> None:
        """`notify`: what its environment needs to say that it turns (`pilotlight/watchdog.py`)."""
        self.module = module
        self._notify = notify
        self._settings = settings
        self._stopping = False
        self.deaths = 0  # in a row, each soon after its start
        self.process: subprocess.Popen[bytes] | None = None  # None: the machine has refused it so far
        self._try_to_start()
        self._watch = asyncio.ensure_future(self._supervise())

    @property
    def pid(self) -> int:
        """0 while none lives: a dead one's number may be another's by now."""
        return self.process.pid if self.process is not None and _is_alive(self.process) else 0

    def _start(self) -> subprocess.Popen[bytes]:
        with (self._settings.paths.logs / f"{self.module}.log").open("ab") as log:
            return subprocess.Popen(
                children.python(self.module),
                env=environ(self._settings) | dict(self._notify),
                cwd=children.FOLDER,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )

    def _try_to_start(self) -> bool:
        try:
            self.process = self._start()
        except (OSError, subprocess.SubprocessError) as error:
            say(
                f"pilotlight: {self.module} cannot be started: {explain_os_error(error) if isinstance(error, OSError) else error}"
            )
            return False
        return True

    async def _supervise(self) -> None:
        begun = self.process is not None
        while not self._stopping:
            if begun and self.process is not None:
                await self._outlived(self.process)
            else:
                await asyncio.sleep(RETRY_SECONDS)
            begun = not self._stopping and self._try_to_start()

    async def _outlived(self, process: subprocess.Popen[bytes]) -> None:
        """Returns when it has died, and the pause after that is over."""
        began = time.monotonic()
        await _ended(process)
        if self._stopping:
            return
        self.deaths = 1 if time.monotonic() - began > 30 else self.deaths + 1
        pause = min(LONGEST_PAUSE, 0.05 * 2 ** min(self.deaths, 10))  # after a thousand deaths it would be no number
        say(f"pilotlight: {self.module} ended ({process.wait()}); starting it again in {pause:g} s, see its log")
        await asyncio.sleep(pause)

    async def stop(self) -> None:
        self._stopping = True
        if self.process is not None:
            if _is_alive(self.process):
                os.kill(self.process.pid, signal.SIGTERM)
            try:
                async with asyncio.timeout(stop_seconds(self.module, self._settings)):
                    await _ended(self.process)
            except TimeoutError:
                os.kill(self.process.pid, signal.SIGKILL)
                await _ended(self.process)
            self.process.wait()
        self._watch.cancel()


def stop_seconds(module: str, settings: Settings) -> float:
    """How long a process may take to stop: as long as its settings let it drain, and a while."""
    if module in BEYOND_DRAIN_SECONDS:
        drain: float = getattr(settings, module).drain_seconds
        return drain + BEYOND_DRAIN_SECONDS[module]
    return STOP_SECONDS[module]


def _as_text(value: object) -> str:
    """As `settings.from_environment` reads it back."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def environ(settings: Settings) -> dict[str, str]:
    """The settings as given, for every process: flags and the file become variables, so that all agree, and nobody
    reads a file again.

    Compiled modules are kept, whatever the shell says: a process that compiles its own at each start is 3 MB larger for
    life.
    """
    ours = {"PILOTLIGHT_STATE_DIR": str(settings.paths.state), "PILOTLIGHT_CONFIG": NO_FILE}
    if settings.database_url:
        ours["PILOTLIGHT_DATABASE_URL"] = settings.database_url
    for section, values in settings:
        if isinstance(values, Section):
            for name in values.model_fields_set:
                ours[f"{PREFIX}{section.upper()}__{name.upper()}"] = _as_text(getattr(values, name))
    return children.environment(os.environ, also=children.names(settings.runtime.environment)) | ours


def _is_alive(process: subprocess.Popen[bytes]) -> bool:
    """Its status is left for `wait`: until that is called nobody else gets its number, nor its session's."""
    return process.returncode is None and os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


async def _ended(process: subprocess.Popen[bytes]) -> None:
    """Return when it has died, and what it left in its session with it; its status is left for `wait`."""
    if _is_alive(process):
        watch = os.pidfd_open(process.pid)
        gone = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(watch, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(watch)
            os.close(watch)
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
