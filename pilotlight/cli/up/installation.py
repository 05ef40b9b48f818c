"""`pilotlight up`: everything of one machine in the foreground, supervised.

It starts Postgres (unless DATABASE_URL names one) and brings its tables up to date, then starts activator, ledger,
admin and router. Each is a process of its own session, so a Ctrl-C reaches only this one. The others are stopped in
order: the router drains first, Postgres goes last.

The failures to survive: a process that dies is started again, with a pause that grows; Postgres too, while the others
go on (`postgres.py`). Where Postgres does not start at all, an installation that has served before starts without it.
When `up` itself is killed by -9 the kernel tells the others to stop (`supervise.py`), and the activator stops what it
started. A closed stdout does not stop it.

The command becomes this module by exec, because it lives as long as the installation. So nothing here imports typer,
rich and what draws certificates, 20 MB in all.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

from pilotlight import children, keys, tls
from pilotlight.certificate_terms import NameRefused
from pilotlight.cli import exit_codes
from pilotlight.cli.exit_codes import FAILED, INTERRUPTED, OK, UNREACHABLE, USAGE, explain_os_error, one_line
from pilotlight.cli.port_checks import PortTaken, here, need_port, with_metrics_port
from pilotlight.cli.trust import write_bundle
from pilotlight.cli.up.postgres import Postgres
from pilotlight.cli.up.readiness import Asker, tell_when_fast
from pilotlight.cli.up.reserve import Reserve
from pilotlight.cli.up.rotation import rotate_logs
from pilotlight.cli.up.supervise import Child, environ
from pilotlight.database import embedded
from pilotlight.database.errors import DatabaseError, SchemaError, Unfit, Unreachable
from pilotlight.database.migrate import migrate
from pilotlight.files import write_atomic
from pilotlight.settings import LONGEST_STATE, Paths, Settings, SettingsError, load
from pilotlight.watchdog import Notifier, Watchdog

PROCESSES = ("activator", "router.ledger", "router.admin", "router")  # in the order of their start
AS_JSON = "--json"
MIGRATE_SECONDS = 1.0  # between two looks whether a Postgres that was away can be brought up to date
RECORDS = "and records wait on disk"
GIVE_UP_DEATHS = 3  # of one process in a row, before all of them once ran


class UpError(Exception):
    """It cannot start; the text says what to do."""


class Installation:
    """All of it, from `start` to `stop`. `say` gets progress in sentences."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings, self._say = settings, say
        self._postgres: Postgres | None = None
        self._keeping: list[asyncio.Task[None]] = []
        self.children: list[Child] = []
        self._lock = self._short = -1
        self._host = host = here(settings.router.host)
        self.url = f"https://{f'[{host}]' if ':' in host else host}:{settings.router.port}"

    @property
    def settings(self) -> Settings:
        """As given; once it has started, with the port of /metrics that it has."""
        return self._settings

    async def start(self) -> None:
        """Returns once the router answers. Raises UpError, PortTaken, DatabaseError, OSError; call `stop` in any
        case.
        """
        paths = self._settings.paths
        if paths.too_long:
            raise UpError(
                f"{paths.state} has more than {LONGEST_STATE} bytes, too many for a Postgres socket: choose a shorter --state"
            )
        paths.make()
        self._lock = _only_one(paths.run / "up.lock")
        self._short = _kept(paths) if paths.sockets != paths.run else -1
        need_port(self._settings.router.host, self._settings.router.port)
        self._settings = with_metrics_port(self._settings)
        keys.ensure_pepper(paths)
        keys.ensure_admin_key(paths)
        tls.ensure_apart(paths, tls.names(self._settings.router))
        self._have_bundle()
        self._keeping.append(asyncio.create_task(rotate_logs(paths, self._settings.logs), name="logs"))
        reserve = Reserve(paths, self._settings.disk, self._say)
        self._keeping.append(asyncio.create_task(reserve.keep(), name="reserve"))
        await self._have_database(reserve)
        self._say("starting activator, ledger, admin and router")
        watchdog = Watchdog(
            paths.sockets / "watch.sock",
            running=lambda: [child.pid for child in self.children if child.pid],  # of those that live
            silent_seconds=self._settings.watch.silent_seconds,
            on_silent=self._hung,
        )
        self._keeping.append(asyncio.create_task(watchdog.run(), name="watchdog"))
        self.children = [Child(module, self._settings, notify=watchdog.environ) for module in PROCESSES]
        await self._wait_for_router()
        self._tell_command_line()

    def _have_bundle(self) -> None:
        """For clients; a disk without room for it ends nothing, and the one of the last start is most often the
        same.
        """
        try:
            write_bundle(self._settings.paths)
        except OSError as error:
            self._say(
                f"{self._settings.paths.ca_bundle} is not written ({explain_os_error(error)}): give clients {self._settings.paths.ca_cert}"
            )

    async def _have_database(self, reserve: Reserve) -> None:
        """Postgres, with its tables as this version expects them; where this installation has served before, now or
        later.

        Raises DatabaseError, OSError.
        """
        paths, dsn = self._settings.paths, self._settings.database_url
        before = paths.policy.exists() and paths.catalogue.exists()
        try:
            if not dsn:
                self._say("starting Postgres")
                start = partial(embedded.start, wal_bytes=self._settings.disk.wal_bytes)
                self._postgres = Postgres(paths, self._say, start=start, cannot_run=reserve.for_postgres)
                try:
                    await self._postgres.start()
                finally:
                    if before or self._postgres.runs:
                        self._keeping.append(asyncio.create_task(self._postgres.keep(), name="Postgres"))
                        watching = self._postgres.watch(self._settings.watch.silent_seconds)
                        self._keeping.append(asyncio.create_task(watching, name="Postgres answers"))
            await migrate(dsn or paths.database_dsn.read_text())
        except (DatabaseError, OSError) as error:
            if not before or isinstance(error, SchemaError | Unfit):
                raise
            reason = explain_os_error(error) if isinstance(error, OSError) else one_line(str(error))
            self._say(
                f"{reason}. Starting without Postgres, with keys and endpoints as they were kept here. Postgres is tried again for ever, {RECORDS}"
            )
            self._keeping.append(asyncio.create_task(self._migrate_later(), name="tables"))

    async def _migrate_later(self) -> None:
        """Bring the tables up to date once Postgres is there."""
        last_reason = ""
        while True:
            await asyncio.sleep(MIGRATE_SECONDS)
            try:
                await migrate(self._settings.database_url or self._settings.paths.database_dsn.read_text())
            except (DatabaseError, OSError) as error:
                if isinstance(error, SchemaError | Unfit) and str(error) != last_reason:
                    last_reason = str(error)
                    self._say(one_line(last_reason))
            else:
                self._say("Postgres answers, and has its tables")
                return

    def _tell_command_line(self) -> None:
        """Where this installation is reached; a disk without room for it keeps what the last start wrote, most often
        the same.
        """
        file, content = (
            self._settings.paths.client,
            json.dumps(
                {"url": self.url, "metrics": _metrics(self._settings)}
                | ({"admin": "off"} if self._settings.router.admin == "off" else {})
            ).encode(),
        )
        try:
            if not file.exists() or file.read_bytes() != content:
                write_atomic(file, content)
        except OSError as error:
            self._say(
                f"the command line cannot learn where this installation is ({explain_os_error(error)}): repair that, then start `up` again"
            )

    def _hung(self, pid: int) -> None:
        names = [child.module for child in self.children if child.pid == pid]
        self._say(f"{''.join(names)} has said nothing for {self._settings.watch.silent_seconds:g} s; killing it")

    async def stop(self) -> None:
        """Stop in reverse order; what was never started is passed over."""
        if self._postgres:
            self._postgres.leave()
        for child in reversed(self.children):
            await child.stop()
        for task in self._keeping:  # until now: what the others still have to write needs Postgres
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        if self._postgres:
            await self._postgres.stop()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        if self._short >= 0:
            shutil.rmtree(self._settings.paths.sockets, ignore_errors=True)
            os.close(self._short)
            self._short = -1

    async def given_up(self) -> None:
        """Returns never. Raises whatever ended what keeps the installation whole."""
        await asyncio.gather(*self._keeping)

    async def _wait_for_router(self, seconds: float = 60.0) -> None:
        """Until the router knows keys and endpoints, and the admin API, asked through it, has heard from the
        activator.
        """
        paths = self._settings.paths
        self.asker = asker = Asker(self._settings, self._host)
        deadline = time.monotonic() + seconds
        while not (await asker.says_yes("/readyz") and await asker.says_yes("/api/v1/status")):
            for child in self.children:
                if child.deaths >= GIVE_UP_DEATHS:
                    log = paths.logs / f"{child.module}.log"
                    raise UpError(f"{child.module} does not stay up; the end of {log}: {_last_words(log)}")
            if time.monotonic() > deadline:
                log = paths.logs / "router.log"
                raise UpError(
                    f"the router does not answer at {self.url} after {seconds:g} s; the end of {log}: {_last_words(log)}"
                )
            await asyncio.sleep(0.05)


def become_up(settings: Settings, *, as_json: bool) -> NoReturn:
    """This process goes on as `python -m pilotlight.cli.up.installation`, under the same number, with these
    settings.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    words = {"PYTHONIOENCODING": f"{sys.stdout.encoding}:replace"}  # of this terminal; its children write to files
    os.execve(
        sys.executable,
        children.python("pilotlight.cli.up.installation", *([AS_JSON] if as_json else [])),
        environ(settings) | words,
    )


def main() -> int:
    exit_codes.settle_in()
    try:
        settings = load()
        os.chdir(children.FOLDER)
        return asyncio.run(_run(settings, as_json=AS_JSON in sys.argv[1:]))
    except SettingsError as error:
        say(one_line(str(error)))
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED


async def _run(settings: Settings, *, as_json: bool) -> int:
    installation = Installation(settings, say)
    stopping = asyncio.Event()
    systemd = Notifier.of_starter()
    systemd.keep()
    for number in stopped_by():
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        starting = asyncio.ensure_future(installation.start())
        stop = asyncio.ensure_future(stopping.wait())
        await asyncio.wait({starting, stop}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            systemd.say("READY=1")
            _show(installation.settings, installation.url, as_json=as_json)
            fast = asyncio.ensure_future(tell_when_fast(installation.asker, settings, say))
            given_up = asyncio.ensure_future(installation.given_up())
            await asyncio.wait({stop, given_up}, return_when=asyncio.FIRST_COMPLETED)
            fast.cancel()
            if given_up.done():
                await given_up
        else:
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
    except OSError as error:
        say(explain_os_error(error))
        return FAILED
    except (UpError, PortTaken, DatabaseError, SettingsError, keys.SecretError, NameRefused) as error:
        say(one_line(str(error)))
        return UNREACHABLE if isinstance(error, Unreachable) else FAILED
    finally:
        systemd.say("STOPPING=1")
        if installation.children:
            say("stopping")
        await installation.stop()
    return OK


def stopped_by() -> list[signal.Signals]:
    """The end of its terminal stops it in order, too; where it was told to outlive that (`nohup`), it does."""
    hangs_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangs_up]


def say(text: str) -> None:
    exit_codes.say(f"pilotlight: {text}")


def _show(settings: Settings, url: str, *, as_json: bool) -> None:
    """What one needs to use it. Nobody need read it."""
    paths, metrics = settings.paths, _metrics(settings)
    try:
        if as_json:
            files = {
                "ca_file": paths.ca_cert,
                "ca_bundle": paths.ca_bundle,
                "admin_key_file": paths.admin_key,
                "logs": paths.logs,
            }
            print(
                json.dumps({"url": url, "metrics": metrics} | {name: str(file) for name, file in files.items()}),
                flush=True,
            )
        else:
            print(f"API        {url}/e/ENDPOINT/v1")
            print(f"CA file    {paths.ca_cert}")
            print(
                f"CA bundle  {paths.ca_bundle}  (the machine's authorities and ours: SSL_CERT_FILE for your programs)"
            )
            print(f"admin key  in {paths.admin_key}")
            print(f"metrics    {metrics}")
            print(f"logs       {paths.logs}", flush=True)
    except BrokenPipeError:
        exit_codes.unread()


def _only_one(file: Path) -> int:
    """Hold a lock on the state folder. Raises UpError when another `up` has it."""
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise UpError(
            f"another `pilotlight up` runs on {file.parent.parent}: stop it with `pilotlight down`, or choose another folder with --state"
        ) from None
    try:
        # for `pilotlight down`; of one length, so that a full disk takes it, too
        os.pwrite(lock, f"{os.getpid():<20}\n".encode(), 0)
    except OSError as error:
        say(f"`pilotlight down` cannot learn which process this is ({explain_os_error(error)})")
    return lock


def _metrics(settings: Settings) -> str:
    """Where the first worker's metrics are read."""
    return f"http://127.0.0.1:{settings.router.metrics_port}/metrics"


def _kept(paths: Paths) -> int:
    """Hold the short folder of sockets, so that what cleans /tmp of old files passes it over. Raises OSError."""
    held = os.open(paths.sockets, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(held, fcntl.LOCK_SH)
    return held


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    return lines[-1] if lines else "its log is empty"


if __name__ == "__main__":
    sys.exit(main())
