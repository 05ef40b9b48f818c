"""The embedded Postgres under `pilotlight up`: when it dies, or does not start, it is started again.

Warm calls need no Postgres, and the ledger's spool keeps their records. So its death ends nothing, however long it
lasts. The failures to survive: kill -9 of it (its log is replayed), one death after another, and a full disk or memory.
A server that is stopped or stuck and answers nothing is killed. A database may also need a person.

It is tried for ever, after pauses that grow up to LONGEST_PAUSE. Each new reason is told once, and every REMIND_SECONDS
that it is still away. Against a full disk it has a reserve (`reserve.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from pilotlight.attention import Attention
from pilotlight.cli.exit_codes import explain_os_error, one_line
from pilotlight.database import embedded
from pilotlight.database.embedded import EmbeddedPostgres
from pilotlight.database.errors import DatabaseError
from pilotlight.database.probe import answers
from pilotlight.settings import Paths

SOUND_SECONDS = 60.0  # who lived so long had started well: its death is the first in a row
FIRST_PAUSE = 0.1  # seconds; doubles
LONGEST_PAUSE = 30.0
PROBE_SECONDS = 1.0  # between two looks whether it answers, and for an answer
REMIND_SECONDS = 300.0

WARM = "Warm calls go on, and their records wait on disk"


class Postgres:
    """The server of one state folder, from `start` to `stop`. `cannot_run` is called whenever it died or did not
    start.
    """

    def __init__(
        self,
        paths: Paths,
        say: Callable[[str], None],
        *,
        start: Callable[[Paths], Awaitable[EmbeddedPostgres]] = embedded.start,
        cannot_run: Callable[[], None] = lambda: None,
    ) -> None:
        self._paths = paths
        self._say = say
        self._start = start
        self._cannot_run = cannot_run
        self._server: EmbeddedPostgres | None = None
        self._last_text, self._last_said_at = "", 0.0
        self._leaving = False

    @property
    def runs(self) -> bool:
        """It was started, and has not been found dead."""
        return self._server is not None

    @property
    def pid(self) -> int:
        """0 while there is none."""
        return self._server.pid if self._server is not None else 0

    async def start(self) -> str:
        """Returns its address once it answers; that stays the same for ever. Raises EmbeddedError, OSError."""
        self._server = await self._start(self._paths)
        return self._server.dsn

    def leave(self) -> None:
        """Everything ends: one that ends now, since all were told to at once, is not started again in the middle of
        it.
        """
        self._leaving = True

    async def keep(self) -> NoReturn:
        """Start it again whenever it is not there, for ever."""
        loop, failures, began = asyncio.get_running_loop(), 0, 0.0
        while True:
            if self._server is not None:
                began = loop.time()
                await self._server.ended()
                if self._leaving:
                    await asyncio.get_running_loop().create_future()  # until it is cancelled
                failures = 1 if loop.time() - began > SOUND_SECONDS else failures + 1
                if failures == 1:
                    self._tell(f"Postgres ended; starting it again. {WARM}")
                else:
                    self._tell(
                        f"Postgres does not stay up, see {self._paths.logs / 'postgres.log'}; starting it again for ever. {WARM}"
                    )
                server, self._server = self._server, None
                await server.stop()
            else:
                failures += 1
            self._cannot_run()
            await asyncio.sleep(pause_after(failures))
            await self._once_more()

    async def watch(self, silent_seconds: float) -> NoReturn:
        """Kill one that neither dies nor answers for so long, so that `keep` starts another; 0: never."""
        attention, answered_at = Attention(), 0.0
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            server, now = self._server, attention.look(asyncio.get_running_loop().time())
            if (
                server is None
                or not silent_seconds
                or await answers(self._paths.postgres / f".s.PGSQL.{embedded.PORT}", PROBE_SECONDS)
            ):
                answered_at = now
            elif now - answered_at > silent_seconds and server is self._server:
                self._tell(f"Postgres has not answered for {silent_seconds:g} s; killing it. {WARM}")
                server.kill()
                answered_at = now

    async def _once_more(self) -> None:
        try:
            self._server = await self._start(self._paths)
        except (DatabaseError, OSError) as error:
            reason = explain_os_error(error) if isinstance(error, OSError) else one_line(str(error))
            self._tell(f"Postgres cannot work: {reason}. It is tried again for ever. {WARM}")
        else:
            self._say("Postgres is back")
            self._last_text = ""

    def _tell(self, text: str) -> None:
        """Each new text once; one that stays the same now and then."""
        now = asyncio.get_running_loop().time()
        if text != self._last_text or now - self._last_said_at > REMIND_SECONDS:
            self._last_text, self._last_said_at = text, now
            self._say(text)

    async def stop(self) -> None:
        if self._server:
            await self._server.stop()


def pause_after(failures: int) -> float:
    """Seconds before it is started once more, after so many deaths or refusals in a row."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 30))
