"""The embedded Postgres: a real server from the first minute, on a Unix socket in the state folder.

    server = await embedded.start(paths)     # `pilotlight up`, before every other process
    await server.ended()                     # returns only when it died: stop() and start() again
    await server.stop()

It ends with its starter. What it survives: kill -9 of the starter, of Postgres, and of either amid the first `initdb`.
The kernel tells Postgres to shut down when its starter is killed; should one be left, the next start ends it. Postgres
replays its log. `initdb` works under another name until it is done. A stale postmaster.pid does not hinder a start, and
a second `up` on the same folder is refused.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
from pathlib import Path
from urllib.parse import quote

from pilotlight.database.account import REMEDY, Account, server_account
from pilotlight.database.binaries import program_folder
from pilotlight.database.cluster import USER, check_version, ensure_password, make_data, make_home
from pilotlight.database.errors import EmbeddedError
from pilotlight.database.leftovers import end_leftovers, gone
from pilotlight.files import write_atomic
from pilotlight.frames import LONGEST_UNIX_PATH
from pilotlight.settings import DiskSettings, Paths

PORT = 5432  # only part of the socket's name: nothing listens on the network
READY_SECONDS = 120.0  # replaying 256 MB of log takes a few
SHUTDOWN = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))  # fast, immediate, last

# Lean in memory and processes; durability (fsync, synchronous_commit, full_page_writes) stays as Postgres has it.
SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "50",
    "shared_buffers": "24MB",
    "wal_buffers": "4MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "io_method": "sync",
    "huge_pages": "off",
    "jit": "off",
    "max_worker_processes": "0",
    "max_parallel_workers": "0",
    "max_parallel_workers_per_gather": "0",
    "max_logical_replication_workers": "0",
    "autovacuum_worker_slots": "1",
    "autovacuum_max_workers": "1",
    "dynamic_shared_memory_type": "mmap",  # files in the data folder: kill -9 leaves nothing in /dev/shm
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "search_path": "pilotlight,public",  # for people with psql; our own sessions say it themselves
}


class EmbeddedPostgres:
    """A running server. `dsn` is for asyncpg and also stands in `paths.database_dsn`."""

    def __init__(self, process: subprocess.Popen[bytes], lock: int, dsn: str) -> None:
        self._process = process
        self._lock = lock
        self.dsn = dsn
        self._watch = os.pidfd_open(process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ended(self) -> None:
        """Return when the server has died, whoever did it."""
        if self._lock >= 0:
            await gone(self._watch)

    def kill(self) -> None:
        """End it hard: it does not answer. What is left of it the next start ends."""
        if self._process.poll() is None:
            self._process.kill()

    async def stop(self) -> None:
        """Shut down: fast, after ten seconds immediately (its log is replayed at the next start). Repeating it is
        harmless.
        """
        if self._lock < 0:
            return
        for number, seconds in SHUTDOWN:
            if self._process.poll() is None:
                self._process.send_signal(number)
            if await gone(self._watch, seconds):
                break
        self._process.wait()
        os.close(self._watch)
        os.close(self._lock)
        self._lock = -1


def wal(most: int) -> dict[str, str]:
    """Settings that keep the log of changes about as large as this, in bytes, and some of it ready to be written again.
    Pure.
    """
    megabytes = most >> 20
    return {"min_wal_size": f"{min(32, megabytes // 2)}MB", "max_wal_size": f"{megabytes}MB"}


async def start(paths: Paths, *, wal_bytes: int = DiskSettings().wal_bytes) -> EmbeddedPostgres:
    """Make the database on first use and start it; returns when it answers. Call it from the main thread's event loop.

    Raises EmbeddedError (with what to do), OSError.
    """
    socket = paths.postgres / f".s.PGSQL.{PORT}"
    if len(os.fsencode(socket)) > LONGEST_UNIX_PATH:
        raise EmbeddedError(
            f"socket path {socket} has more than {LONGEST_UNIX_PATH} bytes: choose a shorter state folder (--state)"
        )
    paths.make()
    lock = _lock(paths.run / "postgres.lock")
    try:
        account = server_account(paths.postgres)
        programs = program_folder(paths, account)
        make_home(paths.postgres, account)
        password = ensure_password(paths)
        data = paths.postgres / "data"
        if data.exists():
            await end_leftovers(data)
            check_version(data)
        else:
            await asyncio.to_thread(make_data, programs, paths.postgres, account, password)
        process = _spawn(programs, paths, account, wal(wal_bytes))
    except BaseException:
        os.close(lock)
        raise
    dsn = f"postgresql://{USER}:{password}@/postgres?host={quote(str(paths.postgres))}&port={PORT}"
    server = EmbeddedPostgres(process, lock, dsn)
    try:
        await _ready(process, data / "postmaster.pid", paths.logs / "postgres.log")
        # it stays the same: a full disk does not matter
        if not paths.database_dsn.exists() or paths.database_dsn.read_text() != dsn:
            write_atomic(paths.database_dsn, dsn.encode())
    except BaseException:
        await server.stop()
        raise
    return server


def _lock(file: Path) -> int:
    """Held as long as the server's owner lives; the kernel releases it, whatever happens."""
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise EmbeddedError(
            f"another process runs the Postgres of this state folder ({file}): stop it, or choose another one (--state)"
        ) from None
    return lock


def _spawn(programs: Path, paths: Paths, account: Account, more: dict[str, str]) -> subprocess.Popen[bytes]:
    data, log = paths.postgres / "data", paths.logs / "postgres.log"
    (data / "postmaster.pid").unlink(missing_ok=True)  # whoever wrote it is gone, but its pid may be another's by now
    folders = '"' + str(paths.postgres).replace('"', '""') + '"'
    settings = [f"--{name}={value}" for name, value in (SETTINGS | more | {"unix_socket_directories": folders}).items()]
    with log.open("ab") as output:
        return account.start([programs / "postgres", "-D", data, *settings], output)


async def _ready(process: subprocess.Popen[bytes], pid_file: Path, log: Path) -> None:
    """Wait until the server's own pid file says so, looking every 10 ms: Postgres offers nothing to wait on. Raises
    EmbeddedError.
    """
    for _ in range(int(READY_SECONDS / 0.01)):
        if process.poll() is not None:
            break
        lines = pid_file.read_text().splitlines() if pid_file.exists() else []
        if len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready":
            return
        await asyncio.sleep(0.01)
    said = log.read_text(errors="replace").strip()[-1000:]
    raise EmbeddedError(f"Postgres did not start; the end of {log}: {said}; correct that, {REMEDY}")
