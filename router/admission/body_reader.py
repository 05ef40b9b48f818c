"""Hands large bodies to the process beside the worker (`reading_process.py`), one at a time, and hears what is in them.
Step 3.

Keys take turns, so whoever sends large bodies only waits for their own. The process is started for the first such body
and ends when there was none for a while. The failures to survive: a process that dies, stands still, cannot be started
or says what it should not. The call is then answered 503, the process is ended, and the next body finds a new one. A
caller may leave while the body is read: then nobody is told. Whatever else happens here, nobody waits for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Protocol

import structlog

from pilotlight import children
from pilotlight.parsed import json_of
from router.admission import reading_process
from router.admission.openai import LARGE_BODY, Asked
from router.admission.routes import Route
from router.errors import RouterError, Unavailable

LARGE = LARGE_BODY  # bytes; what is smaller is read in place
SECONDS = 30.0  # for one body, once it is its turn
IDLE_SECONDS = 60.0
TIMES = 4  # an answer is never longer than so many bodies: one that is written anew has spaces and \\u00e9 in it
_DIED = "This router could not read the body just now. Send the request again."

log = structlog.get_logger()
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Done = Callable[[Asked | RouterError, bytes], None]
"""Hears what a body asks for, or why it is refused; and the body as it goes on."""
_ending: set[asyncio.Task[None]] = set()  # the loop itself keeps no task alive


class Job:
    def __init__(self, route: Route, packed: str, most: int, body: bytes, done: Done) -> None:
        self.head = reading_process.question(route, packed, most)
        self.body = body
        self.done = done
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled, self.body = True, b""


class Reads(Protocol):
    def read(self, user: str, job: Job) -> None:
        """`job.done` is called, now or later, unless it is cancelled before."""


class InPlace:
    """Reads on the loop."""

    def read(self, user: str, job: Job) -> None:
        answered, plain = reading_process.answer(job.head, job.body)
        job.done(reading_process.understood(answered), plain or job.body)


class Reader:
    """`connect` starts the process, and gives the way to it. Raises OSError."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()  # by key, whose turn is next first
        self._working: asyncio.Task[None] | None = None
        self._ending: asyncio.TimerHandle | None = None

    def read(self, user: str, job: Job) -> None:
        self._waiting.setdefault(user, deque()).append(job)
        if self._working is None:
            self._working = asyncio.get_running_loop().create_task(self._work())

    def close(self) -> None:
        """The process ends."""
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None

    def _next(self) -> Job:
        user, jobs = self._waiting.popitem(last=False)
        job = jobs.popleft()
        if jobs:
            self._waiting[user] = jobs  # behind the others
        return job

    def _left(self, job: Job | None) -> Iterator[Job]:
        """Whom nobody would tell: of a fault of ours, or as the worker ends."""
        if job is not None:
            yield job
            self.close()
        while self._waiting:
            yield self._next()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        if self._ending is not None:
            self._ending.cancel()
        job: Job | None = None
        try:
            while self._waiting:
                job = self._next()
                if not job.cancelled:
                    result, body = await self._read(job)
                    loop.call_soon(_tell, job, result, body)
                job = None
        finally:
            for left in self._left(job):
                loop.call_soon(_tell, left, Unavailable(_DIED, retry_after=1.0), b"")
            self._working = None
            self._ending = loop.call_later(IDLE_SECONDS, self.close)

    async def _read(self, job: Job) -> tuple[Asked | RouterError, bytes]:
        body = job.body
        try:
            async with asyncio.timeout(SECONDS):
                if self._connection is None:
                    self._connection = await self._connect()
                answered, plain = await _asked(self._connection, job.head, body)
            return reading_process.understood(answered), plain or body
        except (OSError, EOFError, TimeoutError, ValueError, LookupError, TypeError) as error:
            log.warning(
                "a large body could not be read",
                action="reading",
                bytes=len(body),
                error=f"{type(error).__name__}: {error}",
            )
            self.close()
            return Unavailable(_DIED, retry_after=1.0), b""


def _tell(job: Job, result: Asked | RouterError, body: bytes) -> None:
    if not job.cancelled:
        job.done(result, body)


async def _asked(connection: Connection, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Raises OSError, EOFError; ValueError for what is no answer."""
    stream, writer = connection
    writer.write(reading_process.framed(head, body))
    writer.write(body)
    head_size, body_size = reading_process.SIZES.unpack(await stream.readexactly(reading_process.SIZES.size))
    if head_size + body_size > TIMES * max(head["most"], len(body), LARGE):
        raise ValueError(f"an answer of {head_size} and {body_size} bytes")
    answered = json_of(await stream.readexactly(head_size))
    if not isinstance(answered, dict):
        raise ValueError("an answer that is no object")
    return answered, await stream.readexactly(body_size)


async def start() -> Connection:
    """The process, which gets nothing of our environment but what the machine is, and ends when its side of the
    connection is closed. Raises OSError.
    """
    ours, theirs = socket.socketpair()
    environ = {name: value for name, value in os.environ.items() if name in children.MACHINE}
    with theirs:
        process = await asyncio.create_subprocess_exec(
            *children.python("router.admission.reading_process"),
            stdin=theirs.fileno(),
            env=children.environment(environ),
            cwd=children.FOLDER,
        )
    stream, writer = await asyncio.open_unix_connection(sock=ours, limit=1 << 20)
    ending = asyncio.get_running_loop().create_task(_end(process, writer))
    _ending.add(ending)
    ending.add_done_callback(_ending.discard)
    return stream, writer


async def _end(process: asyncio.subprocess.Process, writer: asyncio.StreamWriter) -> None:
    """Once nobody listens to it any more it need not finish what it reads."""
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
