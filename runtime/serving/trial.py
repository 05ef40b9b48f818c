"""Work of a caller's making, tried in a process that may be ended: bounded CPU time and memory. Step 11.

What compiles a caller's grammar or schema is native code that cannot be interrupted, and whose time and memory nobody
can tell beforehand. So a fork of this process does it first, at a low priority, and its outcome decides whether the
engine is asked. CPU time is what is bounded: a busy machine refuses nobody.

The failures to survive: work that never ends or takes all memory, which the kernel ends with its fork. A caller that
leaves meanwhile, whose fork leaves too. One who sends one such work after another: each caller has two forks at a time.
Descriptors, which a fork would keep open for others: it closes all of them first.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pilotlight.process_death import end_with_parent

AT_ONCE, OF_ONE = 3, 2  # trials of all callers, and of one
MOST_REMEMBERED = 1024  # outcomes
LONGEST_REASON = 300  # bytes
TAKES_LONG, TAKES_MEMORY, FAILS = (
    "it takes too long to compile",
    "it takes too much memory to compile",
    "it cannot be compiled",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one trial may take."""

    cpu_seconds: int = 5
    wall_seconds: float = 60.0  # for a machine on which nothing gets on
    memory_bytes: int = 512 << 20  # beyond what the process has when it is forked


class Trials:
    """Of one process. Outcomes are remembered by `key`: what was refused once is refused at once."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._together = asyncio.Semaphore(AT_ONCE)
        self._of: dict[
            str, tuple[asyncio.Semaphore, list[bytes]]
        ] = {}  # of each caller, with the keys of what it waits for

    async def outcome(self, key: bytes, user: str, work: Callable[[], None]) -> str:
        """ "" where the work can be done, else why not. `work` runs in the fork; what it raises is a reason."""
        if (known := self._known.get(key)) is not None:
            self._known.move_to_end(key)
            return known
        turn, asked = self._of.setdefault(user, (asyncio.Semaphore(OF_ONE), []))
        asked.append(key)
        try:
            async with turn, self._together:
                found = self._known.get(key)
                if found is None:
                    found = self._known[key] = await tried(work, self._limits)
                    if len(self._known) > MOST_REMEMBERED:
                        self._known.popitem(last=False)
                return found
        finally:
            asked.remove(key)
            if not asked:
                del self._of[user]


async def tried(work: Callable[[], None], limits: Limits) -> str:
    """One trial. Raises OSError where no fork can be made."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _in_the_fork(work, writing, limits)
    os.close(writing)
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    loop.add_reader(reading, _heard, over)  # its one word, or its end
    try:
        async with asyncio.timeout(limits.wall_seconds):
            await over
        said = os.read(reading, LONGEST_REASON + 2)
    except TimeoutError:
        said = b""
    finally:
        loop.remove_reader(reading)
        os.close(reading)
        status = _end(pid)
    if said:
        return said[1:].decode(errors="replace").strip()
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return TAKES_MEMORY if ended_by in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS) else TAKES_LONG


def _heard(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)


def _end(pid: int) -> int:
    """Its status, as waitpid gives it: it is over, or about to be."""
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _in_the_fork(work: Callable[[], None], writing: int, limits: Limits) -> None:
    """Never returns. Its word is "=" and a reason, which is empty where all went well."""
    reason = FAILS
    try:
        end_with_parent()
        gc.disable()
        os.dup2(writing, 3)
        os.closerange(4, 1 << 20)
        os.nice(10)
        for number in (signal.SIGXCPU, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 1))
        most = _data_bytes() + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        work()
        reason = ""
    except MemoryError:
        reason = TAKES_MEMORY
    except Exception as error:
        reason = TAKES_MEMORY if "bad_alloc" in str(error) else f"{FAILS}: {error}"
    finally:
        os.write(3, b"=" + reason.encode(errors="replace")[:LONGEST_REASON])
        os._exit(0)


def _data_bytes() -> int:
    """Of private memory that this process may write to, as RLIMIT_DATA counts it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData:"))
    return int(line.split()[1]) << 10
