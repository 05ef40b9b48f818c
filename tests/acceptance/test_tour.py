"""The tour: every command of the README and every verb of the command line, as a user would, against one running
installation.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pilotlight.ports import free_port
from tests.clients.__main__ import place_of, try_all
from tests.clients.table import SHORT
from tests.integration.system import MODEL, System, running

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "pilotlight.cli.main"]
SECONDS = 120


class Tourist:
    """Types commands and remembers which succeeded."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.typed: list[tuple[str, ...]] = [("up",)]

    def run(
        self, *arguments: str, code: int = 0, given: str = "", environ: dict[str, str] | None = None
    ) -> tuple[str, str]:
        """(stdout, stderr)."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=self.system.environ | (environ or {}),
            input=given,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == code, f"pilotlight {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        if code == 0:
            self.typed.append(arguments)
        return done.stdout.strip(), done.stderr.strip()

    def out(self, *arguments: str) -> str:
        return self.run(*arguments)[0]

    def refused(self, *arguments: str, code: int = 1, environ: dict[str, str] | None = None) -> str:
        """A command that must fail with one line; that line."""
        out, said = self.run(*arguments, code=code, environ=environ)
        assert not out
        assert said.startswith("pilotlight: ")
        assert "\n" not in said
        return said


@pytest.fixture(scope="module")
def tourist() -> Iterator[Tourist]:
    with running() as system:
        yield Tourist(system)


def test_every_command_of_the_readme(tourist: Tourist, tmp_path: Path) -> None:
    """In its order; what is printed has what the README shows, as far as that is the same each time."""
    blocks = re.findall(r"```(\w*)\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    manifest = next(text for kind, text in blocks if kind == "toml" and text.startswith("name"))
    (tmp_path / "endpoint.toml").write_text(manifest)
    ours = {"endpoint.toml": str(tmp_path / "endpoint.toml")}
    commands = [
        line for kind, text in blocks if not kind for line in text.splitlines() if line.startswith("$ pilotlight ")
    ]
    assert len(commands) > 12
    for command in commands:
        typed = [ours.get(part, part) for part in shlex.split(command.removeprefix("$ pilotlight "), comments=True)]
        if typed == ["up"]:  # as the fixture did
            continue
        if typed[0] == "rm":
            exports = tourist.out("keys", "create", "demo", "--env")
            program = next(text for kind, text in blocks if kind == "python")
            _in_a_shell(exports, f"exec {shlex.quote(sys.executable)} -c {shlex.quote(program)}")
            if shutil.which("curl"):
                _in_a_shell(exports, next(text for _, text in blocks if "--env)" in text).partition("\n$ ")[2])
        out, said = tourist.run(*typed)
        told = " ".join(f"{out}\n{said}".split())
        for sentence in SHOWN.get(" ".join(typed[:2]), ()):
            assert re.search(sentence, told), told


SHOWN = {  # what the README shows, as far as it is the same each time
    "deploy demo": ("demo is deployed: sha256:7db315718f60…, 0 to 1 replicas",),
    "run demo": (r"(cold|warm) start, first token after \d",),
    "ls": ("demo https://.*/e/demo/v1 .* 0–1 5 s standby 64",),
    "ps": ("demo rev_", "1 standby ready"),
    "starts demo": ("place .* fetch .* spawn .* init .* load .* canary .* whole",),
    "keys create": ("^pl_", "Keep it now, it is not shown again"),
    "keys rotate": ("^pl_", "Both keys work for 1h"),
    "apply -f": (r"demo (would be|is) changed", r"idle_timeout_seconds 5.0 30.0", r"prices.output 0.4000000000 0.8"),
    "usage demo": (r"(cold|warm) complete \d+ \d+ \d+ engine 0.0000",),
    "rm demo": ("demo is removed",),
}


def _in_a_shell(exports: str, line: str) -> None:
    """A line of the README, in a shell that has taken what `keys create --env` prints."""
    done = subprocess.run(
        ["sh", "-c", f'eval "$1"; {line}', "sh", exports], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and '"error"' not in done.stdout, done.stdout


def test_an_endpoint_from_its_manifest(tourist: Tourist, tmp_path: Path) -> None:
    file = tmp_path / "endpoint.toml"
    file.write_text(
        f'name = "tour"\nmodel = "{MODEL}"\nidle_timeout_seconds = 30\n[prices]\ninput = 0.2\ncached = "0.1"\noutput = 0.8\n'
    )
    assert json.loads(tourist.out("apply", "--schema")) == json.loads(
        (ROOT / "docs" / "endpoint.schema.json").read_text()
    )
    assert json.loads(tourist.out("apply", "-f", str(file), "--dry-run", "--json"))["action"] == "create"
    assert "tour" not in tourist.out("ls")
    assert "tour is created" in tourist.run("apply", "-f", str(file))[1]
    assert "nothing to do" in tourist.run("apply", "-f", str(file))[1]
    file.write_text(file.read_text().replace("0.8", "0.9").replace("= 30", "= 31"))
    plan = json.loads(tourist.out("apply", "-f", str(file), "--json"))["changes"]
    assert set(plan) == {"idle_timeout_seconds", "prices.output"}
    listed = {row["name"]: row for row in json.loads(tourist.out("ls", "--json"))}
    assert listed["tour"]["idle_timeout_seconds"] == 31


def test_one_field_and_back(tourist: Tourist) -> None:
    """At zero, and with the same engine: no start is needed."""
    tourist.run("set", "tour", "idle_timeout_seconds=32", "--no-wait")
    tourist.run("set", "tour", "max_replicas=2")
    (newest, *older) = json.loads(tourist.out("revisions", "tour", "--json"))
    assert (newest["state"], newest["differs"], len(older)) == ("serves", {"max_replicas": [1, 2]}, 3)
    assert re.search(r"4 +serves .* max_replicas: 1 → 2", tourist.out("revisions", "tour"))
    assert "is on revision 5" in tourist.run("rollback", "tour", "--to", "2")[1]
    listed = {row["name"]: row for row in json.loads(tourist.out("ls", "--json"))}
    assert (listed["tour"]["idle_timeout_seconds"], listed["tour"]["max_replicas"]) == (31, 1)
    assert "has no revision 99" in tourist.refused("rollback", "tour", "--to", "99")
    assert "there is no field" in tourist.refused("set", "tour", "colour=red", code=2)


def test_talking_and_what_it_cost(tourist: Tourist, tmp_path: Path) -> None:
    answer, took = tourist.run("run", "tour", "-", given="What is Pilotlight?")
    assert "Pilotlight" in answer
    assert "start, first token after" in took
    answers, took = tourist.run("chat", "tour", given="What is Pilotlight?\n\nWhat is a cold start?\n")
    assert took.count("start, first token after") == 2
    assert len(answers.splitlines()) == 2
    tourist.system.usage("tour", 3)
    rows = json.loads(tourist.out("usage", "tour", "--json"))["rows"]
    assert all(float(row["cost"]) > 0 for row in rows)
    assert rows[0]["event_id"][:13] in tourist.out("usage", "show", "tour", "--since", "10m")
    exported = tmp_path / "usage.csv"
    tourist.run("usage", "export", "--endpoint", "tour", "--since", "1h", "-o", str(exported))
    assert {row["event_id"] for row in csv.DictReader(io.StringIO(exported.read_text()))} == {
        row["event_id"] for row in rows
    }
    assert len(tourist.out("usage", "export", "--format", "jsonl").splitlines()) >= len(rows)
    assert "full" in tourist.refused("usage", "export", "-o", "/dev/full")


def test_a_conversation_in_a_terminal(tourist: Tourist) -> None:
    """Ctrl-C drops the line, Ctrl-D leaves."""
    leader, follower = pty.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    chat = subprocess.Popen(
        [*COMMAND, "chat", "tour"],
        env=tourist.system.environ,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        preexec_fn=own_terminal,
    )
    os.close(follower)
    terminal = Terminal(leader)
    try:
        terminal.until("> ")
        terminal.type("What is Pilotlight?\n")
        terminal.until("first token after")
        terminal.until("> ")
        terminal.type("half a question")
        terminal.until("half a question")
        terminal.until("> ", again="\x03")
        terminal.type("\x04")
        assert chat.wait(SECONDS) == 0
    finally:
        chat.kill()
        chat.wait()
        os.close(leader)


class Terminal:
    """Our side of a terminal: what is typed, and what is shown."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._shown = descriptor, ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def until(self, shown: str, *, again: str = "") -> None:
        """Wait until that is shown; what stands before it is done with.

        `again` is typed every other second: Python's input() may hear of a Ctrl-C only with the next key.
        """
        deadline = time.monotonic() + SECONDS
        while shown not in self._shown:
            assert time.monotonic() < deadline, self._shown
            self.type(again)
            while shown not in self._shown and select.select([self._descriptor], [], [], 2.0)[0]:
                self._shown += os.read(self._descriptor, 4096).decode(errors="replace")
        self._shown = self._shown.partition(shown)[2]


def test_what_runs_and_what_it_says(tourist: Tourist) -> None:
    assert re.search(r"tour +rev_\w+ +\d+ +\w+ +ready", tourist.out("ps"))
    assert json.loads(tourist.out("ps", "--json"))["nodes"][0]["connected"]
    assert isinstance(json.loads(tourist.out("events", "tour", "--json")), list)
    assert "WARNING" in tourist.out("logs", "tour")
    assert "connected" in tourist.out("logs", "router", "--since", "10m")
    tourist.typed.append(("logs", "tour", "-f"))
    with subprocess.Popen(
        [*COMMAND, "logs", "tour", "-f"], env=tourist.system.environ, stdout=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline()
        line = "a line that has just been written\n"
        with (tourist.system.paths.endpoint_logs / "tour.log").open("a") as log:
            log.write(line)
        assert line in iter(following.stdout.readline, "")
        following.send_signal(signal.SIGINT)
        assert following.wait(SECONDS) == 130


def test_keys(tourist: Tourist) -> None:
    made = json.loads(tourist.out("keys", "create", "tour", "--label", "web", "--json"))
    assert "web" in tourist.out("keys", "ls", "tour")
    fresh = tourist.out("keys", "rotate", "tour", made["key_id"], "--grace", "1h")
    assert re.search(r"\(in (1h|59m)", tourist.out("keys", "ls", "tour"))
    again = json.loads(tourist.out("keys", "ls", "tour", "--json"))
    assert {key["last_four"] for key in again} >= {made["key"][-4:], fresh[-4:]}
    assert tourist.out("run", "tour", "What is Pilotlight?", "--key", fresh)
    tourist.run("keys", "revoke", made["key_id"])
    newest = next(key["key_id"] for key in again if key["last_four"] == fresh[-4:])
    assert "is revoked" in tourist.run("keys", "rotate", "tour", newest, "--now")[1]
    assert "is revoked" in tourist.refused("keys", "rotate", "tour", newest)


def test_snapshots(tourist: Tourist, tmp_path: Path) -> None:
    import httpx
    from moto.server import ThreadedMotoServer

    digest = tourist.out("snapshot", "pack", str(MODEL))
    assert json.loads(tourist.out("snapshot", "ls", "--json"))[0]["digest"] == digest
    assert tourist.out("snapshot", "verify", digest[:15]) == digest
    assert tourist.out("snapshot", "pin", digest[:15]) == digest
    assert json.loads(tourist.out("snapshot", "ls", "--json"))[0]["pinned"]
    assert re.search(rf"{digest} .* pinned", tourist.out("snapshot", "ls"))
    assert tourist.out("snapshot", "unpin", digest[:15]) == digest
    assert "no pinned snapshot" in tourist.refused("snapshot", "unpin", digest)
    tourist.run("snapshot", "push", digest, str(tmp_path / "folder"))
    assert (
        tourist.run("snapshot", "pull", str(tmp_path / "folder"), digest, "--state", str(tmp_path / "second"))[0]
        == digest
    )
    s3 = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    nowhere = s3 | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    pull = ("snapshot", "pull", "s3://models/tour", digest, "--state")
    server = ThreadedMotoServer(port=0)
    server.start()
    with ThreadPoolExecutor(1) as beside:  # it is asked several times before it counts as away
        away = beside.submit(tourist.refused, *pull, str(tmp_path / "third"), code=3, environ=nowhere)
        try:
            host, port = server.get_host_and_port()
            s3["AWS_ENDPOINT_URL"] = f"http://{host}:{port}"
            assert httpx.put(f"{s3['AWS_ENDPOINT_URL']}/models", trust_env=False).is_success
            tourist.run("snapshot", "push", digest, "s3://models/tour", environ=s3)
            assert tourist.run(*pull, str(tmp_path / "other"), environ=s3)[0] == digest
        finally:
            server.stop()
        assert "127.0.0.1:1" in away.result()
    assert tourist.out("snapshot", "verify", digest, "--state", str(tmp_path / "other")) == digest
    assert Path(tourist.out("snapshot", "synth", str(tmp_path / "tiny"), "--like", "tiny")).is_dir()


@pytest.fixture
def small_disk() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))  # where an unprivileged Postgres can go
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=755", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        folder.rmdir()
        pytest.skip("a small disk can be made by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def another() -> dict[str, str]:
    """An installation beside the tourist's needs ports of its own, where they are chosen."""
    return {"PILOTLIGHT_ROUTER__METRICS_PORT": str(free_port(8))}


def test_a_full_disk(tourist: Tourist, small_disk: Path) -> None:
    state = small_disk / "s"
    assert "free" in tourist.refused("snapshot", "pack", str(MODEL), "--state", str(state))
    assert not [path for path in (state / "snapshots").iterdir() if path.name != ".lock"]
    _, said = tourist.run("up", "--state", str(state), "--port", str(free_port()), code=1, environ=another())
    assert "No space left on device" in said.splitlines()[-1]


def test_this_machine(tourist: Tourist) -> None:
    assert tourist.run("doctor")[1] == "all is well"
    assert all(finding["ok"] for finding in json.loads(tourist.out("doctor", "--json")))
    explained = {setting["name"]: setting for setting in json.loads(tourist.out("config", "explain", "--json"))}
    assert explained["router.port"]["origin"] == "environment PILOTLIGHT_ROUTER__PORT"
    assert "router.port" in tourist.out("config", "explain")
    completion = {"_PILOTLIGHT_COMPLETE": "complete_bash", "COMP_WORDS": "pilotlight rm to", "COMP_CWORD": "2"}
    program = str(Path(sys.executable).with_name("pilotlight"))
    done = subprocess.run(
        [program], env=tourist.system.environ | completion, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.stdout.split() == ["tour"]


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Short enough for a state folder's sockets, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="pl-", dir="/tmp") as folder:
        yield Path(folder)


def test_what_cannot_be_is_told_at_once(tourist: Tourist, short_folder: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    assert "another `pilotlight up` runs" in tourist.refused("up")
    assert "choose a shorter --state" in tourist.refused(
        "up", "--state", str(tmp_path / ("long" * 15)), "--port", str(free_port())
    )
    state = str(short_folder / "state")
    taken = tourist.refused("up", "--state", state, "--port", str(tourist.system.port), environ=another())
    assert "another program has it" in taken and str(tourist.system.port) in taken
    assert "/metrics" in tourist.refused("up", "--state", state, "--port", str(free_port())), (
        "its port was chosen, and is taken"
    )
    assert time.monotonic() - begin < 60, "nothing is waited for"
    nobody = "postgresql://u:secret@127.0.0.1:1/x"
    assert "secret" not in tourist.refused(
        "up", "--state", state, "--port", str(free_port()), code=3, environ=another() | {"DATABASE_URL": nobody}
    )
    assert "no installation has run" in tourist.refused("ls", "--state", state, code=3)
    assert "no endpoint 'nix'" in tourist.refused("run", "nix", "?")
    assert "no such folder" in tourist.refused("deploy", "nix", "--model", "/nowhere")


def test_cold_starts_are_measured(tourist: Tourist) -> None:
    tourist.run("deploy", "short", "--model", str(MODEL), "--idle-timeout", "1", "--no-wait")
    found = json.loads(tourist.out("bench", "coldstart", "short", "--wakes", "2", "--json"))
    assert found["wakes"] == 2 and 0 < found["p50_s"] < 10
    assert {"spawn", "load", "init", "canary", "first_token"} <= set(found["phases"])
    assert len(json.loads(tourist.out("starts", "short", "--json"))) >= 2
    assert "can be woken from standby, parked" in tourist.refused(
        "bench", "coldstart", "short", "--from", "stored", code=2
    )
    tourist.run("rm", "short")


def test_it_is_woken_paused_and_looked_at(tourist: Tourist) -> None:
    assert " awake" in tourist.run("wake", "tour")[1]
    assert json.loads(tourist.out("status", "--json"))["awake"] >= 1
    tourist.run("pause", "tour")
    assert "'tour' is paused by its operator" in tourist.refused("run", "tour", "?")
    assert "`pilotlight resume tour`" in tourist.refused("wake", "tour")
    tourist.run("resume", "tour")
    tourist.run("run", "tour", "?")
    event_id = json.loads(tourist.out("usage", "tour", "--json"))["rows"][0]["event_id"]
    assert event_id in tourist.out("request", event_id[:20])
    assert json.loads(tourist.out("usage", "sum", "tour", "--by", "day", "--json"))[0]["requests"] > 0
    assert tourist.out("help", "usage", "sum") == tourist.out("usage", "sum", "-h")
    assert "tour" in tourist.out("audit", "--since", "1h") and json.loads(
        tourist.out("audit", "--limit", "1", "--json")
    )


def test_what_nobody_needs_is_removed_and_the_rest_backed_up(
    tourist: Tourist, short_folder: Path, tmp_path: Path
) -> None:
    assert "serves tour" in tourist.refused("snapshot", "rm", "7db3")
    tourist.run("snapshot", "synth", str(tmp_path / "tiny"), "--seed", "77")
    digests = [tourist.out("snapshot", "pack", str(tmp_path / "tiny")) for _ in range(2)]
    assert digests[0] in tourist.out("snapshot", "show", digests[0][:19])
    assert digests[0] in tourist.out("snapshot", "prune", "--dry-run") and digests[0] == tourist.out(
        "snapshot", "rm", digests[0][:19]
    )
    backup = tmp_path / "pilotlight.tar"
    tourist.run("backup", str(backup))
    short_folder.chmod(0o711)  # where root has an unprivileged Postgres
    tourist.run("restore", str(backup), "--state", str(short_folder / "restored"))
    assert "is not empty" in tourist.refused("restore", str(backup))


def test_the_endpoint_is_removed(tourist: Tourist) -> None:
    tourist.run("rm", "tour")
    assert "tour" not in {row["name"] for row in json.loads(tourist.out("ls", "--json"))}
    assert tourist.refused("rm", "tour")


def test_client_programs_work_as_their_users_use_them(tourist: Tourist) -> None:
    """Those that need no environment of their own; `make clients` tries all. Last: it puts the endpoint on another
    configuration.
    """
    outcomes, missing = try_all(SHORT, place_of(tourist.system))
    assert not missing
    assert [(outcome.program.name, outcome.failed) for outcome in outcomes] == [(program.name, {}) for program in SHORT]


def test_it_goes_down(tourist: Tourist) -> None:
    assert tourist.run("status")[0]
    tourist.run("down")
    tourist.run("status", code=3)


def test_nothing_was_left_out(tourist: Tourist) -> None:
    """Runs last: every verb that the command line has was typed above, and succeeded."""
    import typer

    from pilotlight.cli.main import app

    verbs = {
        (name, *([child] if child else []))
        for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
        if not command.hidden
        for child in getattr(command, "commands", {"": None})
    }
    typed = {arguments[:2] for arguments in tourist.typed} | {arguments[:1] for arguments in tourist.typed}
    typed.add(("demo",))  # an installation of its own: in test_wheel.py
    assert verbs <= typed, f"no tour has {verbs - typed}"
