"""`pilotlight up`: what it starts with, keeps alive, prints and keeps small; whatever dies or is refused for the moment
is started again.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from pilotlight import certificate_terms, tls
from pilotlight.addresses import of_this_machine
from pilotlight.cli import exit_codes
from pilotlight.cli import main as command_line
from pilotlight.cli.doctor import state_checks
from pilotlight.cli.port_checks import here
from pilotlight.cli.talk.logs import parts_of
from pilotlight.cli.up import installation, postgres, rotation, supervise
from pilotlight.cli.up.postgres import Postgres
from pilotlight.database.embedded import EmbeddedPostgres
from pilotlight.database.errors import EmbeddedError
from pilotlight.settings import LONGEST_STATE, LogSettings, Paths, RouterSettings, Settings, load
from tests.fakes_cli import FakeServer
from tests.pipes import fifo, heard


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    for name in [name for name in os.environ if name.startswith("PILOTLIGHT_") or name == "DATABASE_URL"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    short = tempfile.mkdtemp(prefix="pl-", dir="/tmp")  # sockets lie below a state folder
    Path(short).chmod(0o711)
    yield load(state_dir=Path(short) / "state")
    shutil.rmtree(short)


@pytest.mark.parametrize("beyond", [0, 1])
async def test_up_refuses_a_path_too_long_for_sockets_before_it_makes_anything(tmp_path: Path, beyond: int) -> None:
    state = Path("/tmp") / ("x" * (LONGEST_STATE - len("/tmp/") + beyond))
    assert state_checks.folder(load(state_dir=state)).ok == (not beyond)
    if beyond:
        with pytest.raises(installation.UpError, match="choose a shorter --state"):
            await installation.Installation(load(state_dir=state), lambda text: None).start()
        assert not state.exists()


def test_up_waits_as_long_as_its_settings_let_a_process_drain(settings: Settings) -> None:
    assert [supervise.stop_seconds(module, settings) for module in installation.PROCESSES] == [45.0, 10.0, 5.0, 40.0]
    patient = load(state_dir=settings.state_dir, router={"drain_seconds": 300.0}, activator={"drain_seconds": 600.0})
    assert [supervise.stop_seconds(module, patient) for module in ("activator", "router")] == [615.0, 310.0]


def test_up_goes_on_with_the_settings_it_was_given(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    given = load(
        state_dir=settings.state_dir,
        router={"port": 7, "host": "::1", "cors_origins": ["https://a.test", "https://b.test"]},
        activator={"drain_seconds": 0.5},
        database_url="postgresql://h/db",
    )
    passed: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda program, arguments, environ: passed.append((arguments, environ)))
    installation.become_up(given, as_json=True)
    installation.become_up(given, as_json=False)
    assert [arguments[1:] for arguments, _ in passed] == [
        ["-P", "-m", "pilotlight.cli.up.installation", "--json"],
        ["-P", "-m", "pilotlight.cli.up.installation"],
    ]
    environ = passed[1][1]
    assert "PYTHONDONTWRITEBYTECODE" not in environ
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert load() == given
    assert installation.Installation(given, lambda text: None).url == "https://[::1]:7"


@pytest.mark.parametrize(
    ("host", "url"), [("0.0.0.0", "https://127.0.0.1:7"), ("::", "https://[::1]:7"), ("llm.test", "https://llm.test:7")]
)
def test_what_listens_everywhere_is_reached_here_and_its_certificate_is_the_routers(
    settings: Settings, host: str, url: str
) -> None:
    given = load(state_dir=settings.state_dir, router={"port": 7, "host": host, "domain": "llm.test"})
    assert installation.Installation(given, lambda text: None).url == url
    settings.paths.make()
    tls.ensure(settings.paths, tls.names(given.router))
    names = subprocess.check_output(
        ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", str(settings.paths.secrets / "server.pem")],
        text=True,
    )
    assert here(host) in names or "0:0:0:0:0:0:0:1" in names


def test_ready_is_one_line_of_json_and_nobody_need_read_it(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    installation._show(settings, "https://h:1", as_json=True)
    told = json.loads(capfd.readouterr().out)
    assert told == {
        "url": "https://h:1",
        "metrics": "http://127.0.0.1:9464/metrics",
        "ca_file": str(settings.paths.ca_cert),
        "ca_bundle": str(settings.paths.ca_bundle),
        "admin_key_file": str(settings.paths.admin_key),
        "logs": str(settings.paths.logs),
    }


@contextmanager
def nobody_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """stdout is a pipe that nobody reads; the list grows when that was noticed."""
    reader, writer = os.pipe()
    os.close(reader)
    noticed = list[bool]()

    def unread() -> None:
        noticed.append(True)
        os.dup2(nowhere, writer)

    nowhere = os.open(os.devnull, os.O_WRONLY)
    with os.fdopen(writer, "w") as stdout, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stdout)
        patched.setattr(sys, "stderr", sys.stderr)  # typer replaces both
        patched.setattr(command_line, "unread", unread)
        patched.setattr(exit_codes, "unread", unread)
        yield noticed
        unread()
    os.close(nowhere)


@pytest.mark.parametrize("arguments", [["--help"], ["config", "explain"], ["config", "explain", "--json"], []])
def test_who_has_read_enough_of_a_command_makes_it_no_failure(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = command_line.command()

    def typed() -> None:
        if arguments:
            real(arguments)
        print("so little that it is written at the end")
        sys.exit(0)

    with nobody_reads(monkeypatch) as noticed:
        monkeypatch.setattr(command_line, "command", lambda: typed)
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        assert ended.value.code == 0 and noticed


def test_up_goes_on_though_nobody_reads_what_it_prints(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    with nobody_reads(monkeypatch) as noticed:
        installation._show(settings, "https://h:1", as_json=False)
        assert noticed == [True]


def test_a_failed_command_is_failed_whoever_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "command", lambda: lambda: sys.exit(3))
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 3


def test_what_is_said_to_nobody_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", closefd=True) as broken:
        monkeypatch.setattr(sys, "stderr", broken)
        exit_codes.say("x")
        with pytest.raises(BrokenPipeError):
            broken.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)
    exit_codes.say("y")  # closed


@pytest.mark.parametrize(
    "refusal", [OSError(errno.EAGAIN, "no process"), OSError(errno.ENOSPC, "full"), subprocess.SubprocessError("odd")]
)
async def test_a_child_that_could_not_be_started_is_started_later(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    monkeypatch.setattr(supervise, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(supervise, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(supervise, "stop_seconds", lambda module, settings: 5.0)
    refusals, started = [refusal, refusal], asyncio.Event()

    class Stubborn(supervise.Child):
        lives = 0

        def _start(self) -> subprocess.Popen[bytes]:
            if self.lives and refusals:
                raise refusals.pop()
            self.lives += 1
            if self.lives == 2:
                started.set()
            return subprocess.Popen(
                [sys.executable, "-S", "-c", "pass" if self.lives == 1 else "input()"], stdin=subprocess.PIPE
            )

    child = Stubborn("router", settings)
    async with asyncio.timeout(10):
        await started.wait()
    await child.stop()
    assert not refusals


async def test_the_number_of_a_dead_child_is_not_told_while_none_follows(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(supervise, "LONGEST_PAUSE", 0.0)
    refused = asyncio.Event()

    class Once(supervise.Child):
        started = False

        def _start(self) -> subprocess.Popen[bytes]:
            if self.started:
                refused.set()
                raise OSError(errno.EAGAIN, "no process")
            self.started = True
            return subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)

    child = Once("router", settings)
    assert child.process is not None and child.pid == child.process.pid
    child.process.kill()
    async with asyncio.timeout(10):
        await refused.wait()
    assert child.pid == 0
    await child.stop()


@pytest.mark.parametrize("in_order", [True, False])
async def test_what_a_dead_child_leaves_in_its_session_is_killed_with_it(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_order: bool
) -> None:
    """Also what is stopped: it would hold what it inherited, the port for one, for ever."""
    monkeypatch.setattr(supervise, "stop_seconds", lambda module, settings: 5.0)
    left = tmp_path / "left"
    says = fifo(left)

    class Leaves(supervise.Child):
        def _start(self) -> subprocess.Popen[bytes]:
            script = f"sleep 1000 & kill -STOP $!; echo $! > {left}; wait"
            return subprocess.Popen(["sh", "-c", script], start_new_session=True)

    child = Leaves("router", settings)
    held = os.pidfd_open(int(await asyncio.to_thread(heard, says)))
    os.close(says)
    assert child.process is not None
    if not in_order:
        monkeypatch.setattr(child, "_try_to_start", lambda: False)
        child.process.kill()
    stopping = asyncio.create_task(child.stop()) if in_order else None
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(held, gone.set)
    async with asyncio.timeout(10):
        await gone.wait()
    asyncio.get_running_loop().remove_reader(held)
    os.close(held)
    await (stopping or child.stop())


async def test_a_dead_postgres_is_started_again_however_often_it_does_not_start_at_first(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "FIRST_PAUSE", 0.0)
    refusals: list[Exception] = [EmbeddedError("no"), OSError(errno.ENOSPC, "No space left on device")]
    servers: list[FakeServer] = []
    again, said = asyncio.Event(), list[str]()

    async def start(paths: Paths) -> EmbeddedPostgres:
        if servers and refusals:
            raise refusals.pop(0)
        servers.append(FakeServer())
        if len(servers) == 2:
            again.set()
        return cast(EmbeddedPostgres, servers[-1])

    kept = Postgres(settings.paths, said.append, start=start)
    await kept.start()
    keeping = asyncio.create_task(kept.keep())
    servers[0].died.set()
    async with asyncio.timeout(5):
        await again.wait()
    assert servers[0].stopped and not servers[1].stopped and not keeping.done()
    assert any("the disk is full" in text for text in said)
    keeping.cancel()
    await kept.stop()
    assert servers[1].stopped


@pytest.mark.parametrize(
    ("reason", "told"), [(EmbeddedError("its log\nsays why"), "its log says why"), (None, "postgres.log")]
)
async def test_a_postgres_that_does_not_stay_up_is_tried_for_ever_and_its_reason_told_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, reason: Exception | None, told: str
) -> None:
    monkeypatch.setattr(postgres, "FIRST_PAUSE", 0.0)
    starts, said, often = 0, list[str](), asyncio.Event()

    async def start(paths: Paths) -> EmbeddedPostgres:
        nonlocal starts
        starts += 1
        if starts == 100:
            often.set()
        if starts > 1 and reason:
            raise reason
        server = FakeServer()
        server.died.set()
        return cast(EmbeddedPostgres, server)

    kept = Postgres(settings.paths, said.append, start=start)
    await kept.start()
    keeping = asyncio.create_task(kept.keep())
    async with asyncio.timeout(5):
        await often.wait()
    assert not keeping.done()
    keeping.cancel()
    assert (
        sum(told in text for text in said) == (1 if reason else sum("does not stay up" in text for text in said)) >= 1
    )
    assert all("for ever" in text for text in said if told in text)


def test_pauses_before_postgres_is_started_again_grow_and_end_growing() -> None:
    assert [postgres.pause_after(n) for n in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert postgres.pause_after(40) == postgres.pause_after(100_000) == postgres.LONGEST_PAUSE


async def test_an_installation_whose_processes_the_machine_refuses_at_first_gets_them(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(supervise, "stop_seconds", lambda module, settings: 5.0)
    refusals, started = [OSError(errno.ENOSPC, "full")], asyncio.Event()

    class Refused(supervise.Child):
        def _start(self) -> subprocess.Popen[bytes]:
            if refusals:
                raise refusals.pop()
            started.set()
            return subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)

    child = Refused("router", settings)
    async with asyncio.timeout(10):
        await started.wait()
    await child.stop()
    assert child.process is not None and child.process.poll() is not None


async def test_a_child_that_never_could_be_started_is_stopped(settings: Settings) -> None:
    class Never(supervise.Child):
        def _start(self) -> subprocess.Popen[bytes]:
            raise OSError(errno.ENOSPC, "full")

    child = Never("router", settings)
    await asyncio.sleep(0)
    await child.stop()
    assert child.process is None


async def test_a_postgres_that_ends_while_everything_ends_is_not_started_again(settings: Settings) -> None:
    servers: list[FakeServer] = []

    async def start(paths: Paths) -> EmbeddedPostgres:
        servers.append(FakeServer())
        return cast(EmbeddedPostgres, servers[-1])

    kept = Postgres(settings.paths, lambda text: None, start=start)
    await kept.start()
    keeping = asyncio.create_task(kept.keep())
    await asyncio.sleep(0)
    kept.leave()
    servers[0].died.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not keeping.done() and len(servers) == 1
    keeping.cancel()


async def test_a_postgres_that_answers_nothing_is_killed_and_started_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts, since the kernel does."""
    monkeypatch.setattr(postgres, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(postgres, "PROBE_SECONDS", 0.01)
    settings.paths.postgres.mkdir(parents=True)
    servers: list[FakeServer] = []
    again, said = asyncio.Event(), list[str]()

    async def start(paths: Paths) -> EmbeddedPostgres:
        servers.append(FakeServer())
        if len(servers) == 2:
            again.set()
        return cast(EmbeddedPostgres, servers[-1])

    kept = Postgres(settings.paths, said.append, start=start)
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(settings.paths.postgres / ".s.PGSQL.5432"))
        stopped.listen()
        await kept.start()
        tasks = [asyncio.create_task(kept.keep()), asyncio.create_task(kept.watch(0.05))]
        async with asyncio.timeout(10):
            await again.wait()
    assert "Postgres has not answered for 0.05 s; killing it" in said[0]
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize(("before", "stops"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_a_terminal_that_closes_stops_it_in_order_unless_it_was_told_to_outlive_that(
    before: signal.Handlers, stops: bool
) -> None:
    had = signal.signal(signal.SIGHUP, before)
    try:
        assert (signal.SIGHUP in installation.stopped_by()) is stops
    finally:
        signal.signal(signal.SIGHUP, had)


def test_a_log_is_cut_in_place_and_older_ones_are_kept(tmp_path: Path) -> None:
    log, small = tmp_path / "router.log", LogSettings(max_bytes=1 << 16, old_files=2)
    with log.open("ab", buffering=0) as held:  # as a process holds it
        for life in range(4):
            held.write(b"first %d\n" % life)
            assert not rotation.rotate(log, small)
            held.write((b"%d" % life) * (1 << 16) + b"\nlast %d\n" % life)
            assert rotation.rotate(log, small)
        held.write(b"after\n")
    assert log.read_bytes() == b"after\n"
    assert [part.name for part in parts_of(log)] == ["router.log.2", "router.log.1", "router.log"]
    assert [part.read_bytes() for part in parts_of(log)[:2]] == [
        b"last 2\n",
        b"last 3\n",
    ]  # whole lines of the newest max_bytes
    assert (tmp_path / "router.log.1").stat().st_mode & 0o777 == 0o600


def test_a_log_on_a_full_disk_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, small = tmp_path / "router.log", LogSettings(max_bytes=1 << 16, old_files=1)
    log.write_bytes(b"x" * (1 << 17))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr("shutil.copyfileobj", full)
        rotation.rotate(log, small)
    assert log.stat().st_size == 1 << 17 and [file.name for file in tmp_path.iterdir()] == ["router.log"]
    assert rotation.rotate(log, small.model_copy(update={"old_files": 0})) and log.stat().st_size == 0


def test_every_wildcard_spelling_the_certificate_leaves_out_is_reached_here() -> None:
    for host in ("0.0.0.0", "::", ""):
        assert tls.names(RouterSettings(host=host)) == of_this_machine() and here(host) in certificate_terms.ALWAYS
