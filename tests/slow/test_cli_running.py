"""up --detach, status and down: who runs is told by a lock, a start that fails says why, and what clients trust is one
whole file.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotlight import children, tls
from pilotlight.cli import main as command_line
from pilotlight.cli import trust
from pilotlight.cli.running import pid_of
from pilotlight.cli.up import background, installation, readiness
from pilotlight.cli.up.readiness import Asker, tell_when_fast
from pilotlight.settings import Settings, load
from tests.fakes_cli import prepared


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    for name in [name for name in os.environ if name.startswith("PILOTLIGHT_") or name == "DATABASE_URL"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    short = tempfile.mkdtemp(prefix="pl-", dir="/tmp")  # sockets lie below a state folder
    yield prepared(load(state_dir=Path(short) / "state"))
    shutil.rmtree(short)


def standin(script: str, folder: Path, module: str = background.MODULE) -> list[str]:
    """A program that looks like `up` in the list of processes."""
    file = folder / "standin.py"
    file.write_text(script)
    return [sys.executable, "-S", str(file), module]


def test_a_background_start_returns_what_it_prints_when_ready(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    told = {
        "url": "https://h:1",
        "ca_file": "/ca",
        "ca_bundle": "/bundle",
        "admin_key_file": "/key",
        "metrics": "m",
        "logs": "/logs",
    }
    command = standin(f"import sys; print({json.dumps(told)!r}, flush=True)", tmp_path)
    monkeypatch.setattr(children, "python", lambda module, *arguments: command)
    assert background.detach(settings, as_json=False) == 0
    out = capfd.readouterr().out
    assert "https://h:1/e/ENDPOINT/v1" in out and "/bundle" in out
    assert background.detach(settings, as_json=True) == 0
    assert json.loads(capfd.readouterr().out).items() > told.items()


def test_a_background_start_that_fails_says_its_last_words_and_has_its_exit_code(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (settings.paths.logs / "up.log").write_text("pilotlight: of another day\n")
    command = standin("import sys; print('pilotlight: port 8443 is taken', file=sys.stderr); sys.exit(3)", tmp_path)
    monkeypatch.setattr(children, "python", lambda module, *arguments: command)
    assert background.detach(settings, as_json=False) == 3
    assert capfd.readouterr().err.splitlines()[-1] == "pilotlight: port 8443 is taken"


def test_one_that_runs_is_not_started_again(settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    lock = installation._only_one(settings.paths.run / "up.lock")
    assert pid_of(settings.paths) == os.getpid()
    assert background.detach(settings, as_json=False) == 1
    assert "it already runs" in capfd.readouterr().err
    os.close(lock)
    assert pid_of(settings.paths) == 0, "a number that nobody's lock stands behind is nobody's"


HOLDS = """
import fcntl, os, signal, sys
lock = os.open({lock!r}, os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
os.pwrite(lock, b"%d\\n" % os.getpid(), 0)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("holds", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("module", background.MODULES)
def test_down_stops_the_one_that_holds_the_folder_and_a_second_down_is_no_failure(
    settings: Settings, tmp_path: Path, capfd: pytest.CaptureFixture[str], module: str
) -> None:
    command = standin(HOLDS.format(lock=str(settings.paths.run / "up.lock")), tmp_path, module)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"holds\n"
        assert dict(background.words_of(background.standing(settings)))["running"].startswith(
            f"yes, process {process.pid}"
        )
        background.take_down(settings, wait=True, as_json=True)
        assert process.wait(timeout=10) == 0
    assert json.loads(capfd.readouterr().out) == {"was_running": True, "stopped": True, "pid": process.pid}
    background.take_down(settings, wait=True, as_json=True)
    assert json.loads(capfd.readouterr().out) == {"was_running": False, "stopped": True}


def test_down_signals_nothing_that_is_no_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda descriptor, number: sent.append(number))
    lock = installation._only_one(settings.paths.run / "up.lock")  # this process, which is pytest
    for content, said in (
        (f"{os.getpid()}\n", "is not `pilotlight up`"),
        ("", "does not say which process"),
        ("x", "does not say which process"),
    ):
        (settings.paths.run / "up.lock").write_text(content)
        monkeypatch.setattr("sys.argv", ["pilotlight", "down", "--state", str(settings.paths.state)])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        assert ended.value.code == 1 and said in capfd.readouterr().err
    os.close(lock)
    assert not sent


def test_the_standing_in_numbers_and_words(settings: Settings) -> None:
    found = background.standing(settings)
    assert not found["running"] and not found["answers"] and found["version"]
    assert dict(background.words_of(found))["running"] == "no: `pilotlight up` starts it"
    replicas = [{"state": "ready"}, {"state": "starting"}]
    status: dict[str, Any] = {
        "endpoints": [
            {"removed": False, "revisions": [{"replicas": replicas}]},
            {"removed": False, "revisions": [{"replicas": []}]},
            {"removed": True, "revisions": [{"replicas": [{"state": "draining"}]}]},
        ],
        "nodes": [{"connected": True, "standbys_ready": 1}, {"connected": False, "standbys_ready": 0}],
    }
    numbers = background.counted(status)
    assert numbers == {"endpoints": 2, "awake": 1, "replicas": 3, "nodes": 2, "nodes_connected": 1, "standbys_ready": 1}
    told = dict(
        background.words_of(
            found | numbers | {"running": True, "pid": 7, "seconds": 90, "answers": True, "url": "https://h"}
        )
    )
    assert told["running"] == "yes, process 7, for 1m 30s" and told["wakes"].startswith("fast")


# What clients trust


def certificates(content: bytes) -> int:
    return content.count(b"BEGIN CERTIFICATE")


def test_the_bundle_has_the_machines_authorities_and_ours_and_never_grows(settings: Settings, tmp_path: Path) -> None:
    machine = tmp_path / "machine.pem"
    machine.write_bytes(trust.machines(settings.paths, {}).rstrip())  # without a line's end
    known = certificates(machine.read_bytes())
    for environ in (
        {"SSL_CERT_FILE": str(machine)},
        {},
        {"SSL_CERT_FILE": str(settings.paths.ca_bundle)},
        {"SSL_CERT_FILE": str(settings.paths.ca_cert)},
    ):
        trust.write_bundle(settings.paths, environ)
        content = settings.paths.ca_bundle.read_bytes()
        assert known and certificates(content) == known + 1 and content.endswith(settings.paths.ca_cert.read_bytes())
    assert settings.paths.ca_bundle.stat().st_mode & 0o777 == 0o644
    before = settings.paths.ca_bundle.stat().st_ino
    trust.write_bundle(settings.paths, {})
    assert settings.paths.ca_bundle.stat().st_ino == before
    assert ssl.create_default_context(cafile=str(settings.paths.ca_bundle)).cert_store_stats()["x509_ca"] > known / 2


def test_a_machine_without_authorities_has_ours(settings: Settings) -> None:
    assert trust.bundle(b"", b"ours\n") == b"ours\n" and trust.bundle(b"theirs", b"ours") == b"theirs\nours\n"


def test_a_new_authority_of_ours_is_in_the_next_bundle(settings: Settings) -> None:
    trust.write_bundle(settings.paths, {})
    for file in (settings.paths.ca_cert, settings.paths.secrets / "ca.key"):
        file.unlink()
    tls.ensure(settings.paths)
    trust.write_bundle(settings.paths, {})
    assert settings.paths.ca_bundle.read_bytes().endswith(settings.paths.ca_cert.read_bytes())


def test_the_lines_are_a_shells_whatever_the_folder_is_called() -> None:
    said = "\n".join(trust.lines("https://h:1", "demo", "pl_x", "/a folder/$(reboot)/ca-bundle.pem"))
    done = subprocess.run(
        [
            "sh",
            "-c",
            f'{said}\nprintf "%s\\n" "$OPENAI_BASE_URL" "$OPENAI_API_KEY" "$SSL_CERT_FILE" "$NODE_EXTRA_CA_CERTS"',
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["https://h:1/e/demo/v1", "pl_x", *["/a folder/$(reboot)/ca-bundle.pem"] * 2]


# When wakes are fast


class Says(Asker):
    """Answers one status after the other; None: nobody answers."""

    def __init__(self, *standbys: int | None) -> None:
        self._standbys = list(standbys)

    async def status(self) -> dict[str, Any] | None:
        ready = self._standbys.pop(0) if len(self._standbys) > 1 else self._standbys[0]
        return None if ready is None else {"nodes": [{"standbys_ready": ready}]}


async def test_up_says_once_that_wakes_are_slow_and_once_that_they_are_fast(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "LOOK_SECONDS", 0.0)
    said: list[str] = []
    await tell_when_fast(Says(0, None, 0, 1), settings, said.append)
    assert said == [readiness.SLOW, readiness.FAST]
    said.clear()
    await tell_when_fast(Says(1), settings, said.append)
    none = load(state_dir=settings.state_dir, runtime={"standbys": 0})
    await tell_when_fast(Says(0), none, said.append)
    assert not said


async def test_what_answers_nonsense_or_nothing_is_asked_again(settings: Settings) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = tls.ensure(settings.paths)
    context.load_cert_chain(pair.cert_file, pair.key_file)
    answers = [b"HTTP/1.1 200 OK\r\n\r\n{}", b"HTTP/1.1 200 OK\r\n\r\n[1", b"HTTP/1.1 503 No\r\n\r\n{}", b""]

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers.pop(0))
        writer.close()

    server = await asyncio.start_server(attend, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    asker = Asker(load(state_dir=settings.state_dir, router={"port": port}), "127.0.0.1")
    assert [await asker.status() for _ in range(4)] == [{}, None, None, None]
    server.close()
    await server.wait_closed()
    assert await asker.says_yes("/readyz") is False
