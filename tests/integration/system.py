"""A whole installation for tests: `pilotlight up` as a user starts it, on a folder and ports of its own."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from pilotlight.cli.api import Api, ApiError
from pilotlight.ports import free_port
from pilotlight.settings import Paths

MODEL = Path(__file__).parents[2] / "snapshots" / "demo" / "model"
QUESTION = "What is Pilotlight?"
OF_A_REPLICA = re.compile(r"plr[0-9a-f]{8}_")  # names in /dev/shm


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of `condition`, asked again until then: for what can only be asked for. Raises
    AssertionError.
    """
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        pause.wait(0.02)
    return value


class System:
    """One running installation."""

    def __init__(self, **settings: str) -> None:
        """On a folder of its own, or the one in the settings; what `up` prints lies beside that, for its disk may be
        full.
        """
        self.state = Path(settings.get("PILOTLIGHT_STATE_DIR") or tempfile.mkdtemp(prefix="pl-", dir="/tmp"))
        self.state.chmod(0o711)
        self.paths = Paths(self.state)
        self.shared_memory_before = set(os.listdir("/dev/shm"))
        self.port = free_port()
        ours = {
            "PILOTLIGHT_STATE_DIR": str(self.state),
            "PILOTLIGHT_ROUTER__PORT": str(self.port),
            "PILOTLIGHT_ROUTER__METRICS_PORT": str(free_port(8)),
        }
        self.environ = os.environ | ours | settings
        for name in ("DATABASE_URL", "COLUMNS"):
            self.environ.pop(name, None)
        self.printed = self.state.with_name(f"{self.state.name}.out")
        self.output = self.printed.open("wb")
        self.begin()

    def begin(self) -> None:
        """Once, or again after everything has ended."""
        self.up = subprocess.Popen(
            [sys.executable, "-m", "pilotlight.cli.main", "up"],
            env=self.environ,
            stdout=self.output,
            stderr=self.output,
            start_new_session=True,
        )

    def ready(self) -> None:
        """Wait for the router and the first rehearsed standby."""
        wait_until(lambda: self.paths.client.exists() or self._dead(), 120, "the router answers")
        self.api = Api(self.paths)
        wait_until(lambda: any(node["standbys_ready"] for node in self.status()["nodes"]), 250, "a standby is ready")

    def _dead(self) -> bool:
        assert self.up.poll() is None, f"up ended: {self.printed.read_text()}"
        return False

    def status(self) -> dict[str, Any]:
        try:
            status: dict[str, Any] = self.api.call("GET", "/status")
        except ApiError:
            return {"nodes": [], "endpoints": []}
        return status

    def cli(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pilotlight.cli.main", *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == code, f"pilotlight {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def deploy(self, name: str, *options: str, model: Path = MODEL) -> str:
        """Deploy, without the one start that proves a new name, and return a key that works."""
        self.cli("deploy", name, "--model", str(model), "--no-wait", *options)
        return self.key(name)

    def key(self, name: str) -> str:
        """A new one, which the routers know."""

        def known() -> str | None:
            made = self.api.call("POST", f"/endpoints/{name}/keys", json={"name": "test"})
            return made["key"] if made["everywhere"] else None

        key: str = wait_until(known, 60, "the routers know a new key")
        return key

    def client(self, key: str, **options: Any) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.paths.ca_cert))
        headers = {"authorization": f"Bearer {key}"}
        return httpx.Client(
            base_url=self.api.url, verify=context, headers=headers, trust_env=False, **({"timeout": 300} | options)
        )

    def async_client(self, key: str, connections: int = 100) -> httpx.AsyncClient:
        context = ssl.create_default_context(cafile=str(self.paths.ca_cert))
        limits = httpx.Limits(max_connections=connections)
        headers = {"authorization": f"Bearer {key}"}
        return httpx.AsyncClient(
            base_url=self.api.url, verify=context, headers=headers, timeout=300, limits=limits, trust_env=False
        )

    def replicas(self, name: str) -> list[dict[str, Any]]:
        endpoints = [endpoint for endpoint in self.status()["endpoints"] if endpoint["name"] == name]
        return [
            replica for endpoint in endpoints for revision in endpoint["revisions"] for replica in revision["replicas"]
        ]

    def failure(self, name: str) -> str:
        """Why the endpoint's last start failed, as its operator sees it: callers are told where to ask."""
        endpoints = [endpoint for endpoint in self.status()["endpoints"] if endpoint["name"] == name]
        return " ".join(revision["failure"] or "" for endpoint in endpoints for revision in endpoint["revisions"])

    def digest(self, name: str) -> str:
        """Of what the endpoint serves."""
        (endpoint,) = [endpoint for endpoint in self.status()["endpoints"] if endpoint["name"] == name]
        found: str = endpoint["revisions"][-1]["digest"]
        return found

    def until_zero(self, name: str, seconds: float = 120) -> None:
        wait_until(lambda: self.status()["nodes"] and not self.replicas(name), seconds, f"{name} is at zero")

    def to_zero(self, name: str) -> None:
        """By its operator, and served again: an idle timeout that a slow machine keeps to is too long to wait for.

        Routers hear of both a moment later; that they have is seen by an origin that is let in from then on, in eight
        connections, whichever worker takes them.
        """
        origin = f"https://{secrets.token_hex(8)}.example.org"
        self.api.call("PUT", f"/endpoints/{name}", json={"paused": True})
        self.until_zero(name)
        self.api.call("PUT", f"/endpoints/{name}", json={"paused": False, "cors_origins": [origin]})
        headers = {"origin": origin, "access-control-request-method": "POST"}

        def let_in() -> bool:
            with self.client("none") as client:
                return client.options(f"/e/{name}/v1/models", headers=headers).is_success

        wait_until(lambda: all(let_in() for _ in range(8)), 30, f"the routers serve {name} again")

    def until_ready(self, name: str, seconds: float = 120) -> dict[str, Any]:
        def ready() -> list[dict[str, Any]]:
            return [replica for replica in self.replicas(name) if replica["state"] == "ready"]

        found: dict[str, Any] = wait_until(ready, seconds, f"{name} has a ready replica")[0]
        return found

    def engine_counters(self, replica: dict[str, Any]) -> tuple[int, int]:
        """(prompt, generation) tokens as vLLM's own counters have them."""
        transport = httpx.HTTPTransport(uds=replica["address"].removeprefix("unix:"))
        with httpx.Client(transport=transport) as client:
            text = client.get("http://replica/metrics").text
        found = {
            name: float(value)
            for name, value in re.findall(r"^vllm:(prompt|generation)_tokens_total\{[^}]*\} (\S+)", text, re.M)
        }
        return int(found.get("prompt", 0)), int(found.get("generation", 0))

    def at_rest(self, replica: dict[str, Any]) -> tuple[int, int]:
        """The same, once its engine makes nothing: twice the same, while some steps would have been done."""
        seen = [self.engine_counters(replica)]

        def still() -> bool:
            threading.Event().wait(0.3)  # what is seen is that nothing is made in this time
            seen.append(self.engine_counters(replica))
            return seen[-1] == seen[-2]

        wait_until(still, 60, "its engine rests")
        return seen[-1]

    async def leave(self, client: httpx.AsyncClient, replica: dict[str, Any], path: str, body: dict[str, Any]) -> None:
        """A call whose client leaves in the middle of an answer that is not streamed: once the engine has made some of
        it.
        """
        _, made = await asyncio.to_thread(self.at_rest, replica)
        calling = asyncio.ensure_future(client.post(path, json=body))
        begun = functools.partial(
            wait_until, lambda: self.engine_counters(replica)[1] > made or calling.done(), 60, "some of it is made"
        )
        await asyncio.to_thread(begun)
        assert not calling.done(), "it was answered before its client could leave"
        calling.cancel()
        await asyncio.wait([calling])

    def usage(self, name: str, rows: int, seconds: float = 60) -> list[dict[str, Any]]:
        """All usage rows of an endpoint, once there are at least `rows`."""

        def enough() -> list[dict[str, Any]] | None:
            try:
                found: list[dict[str, Any]] = self.api.call("GET", "/usage", params={"endpoint": name, "limit": 1000})[
                    "rows"
                ]
            except ApiError:
                return None
            return found if len(found) >= rows else None

        found: list[dict[str, Any]] = wait_until(enough, seconds, f"{rows} usage rows of {name}")
        return found

    def request(self, request_id: str, seconds: float = 60) -> dict[str, Any]:
        """The settled row of one request, its phases included."""

        def settled() -> dict[str, Any] | None:
            try:
                row: dict[str, Any] = self.api.call("GET", f"/requests/{request_id}")
            except ApiError:
                return None
            return row

        found: dict[str, Any] = wait_until(settled, seconds, f"request {request_id} is settled")
        return found

    def processes(self) -> dict[int, str]:
        """Every living process of this installation, by its environment: pid → command line."""
        mark = f"PILOTLIGHT_STATE_DIR={self.state}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if mark in (entry / "environ").read_bytes() and int(entry.name) != os.getpid():
                        found[int(entry.name)] = (
                            (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                        )
                except OSError:
                    continue
        return found

    def pid_of(self, module: str) -> int:
        """The process of `python -m MODULE`."""

        def one() -> int | None:
            found = [
                pid
                for pid, line in self.processes().items()
                if f"-m {module} " in line and not self._is_of_a_replica(pid)
            ]
            return found[0] if found else None

        pid: int = wait_until(one, 60, f"a process of {module}")
        return pid

    def _is_of_a_replica(self, pid: int) -> bool:
        """It works in a replica's folder; by its command line it may be the standby that it was forked from."""
        try:
            return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(self.paths.replicas)
        except OSError:
            return False

    def stop(self) -> None:
        if self.up.poll() is None:
            self.up.send_signal(signal.SIGTERM)
        self.up.wait(90)

    def left_of_replicas(self) -> dict[str, Any]:
        """What those that have ended still hold: processes, shared memory, folders, sockets. All must be empty, a
        moment after the last one.
        """
        return {
            "processes": {pid: line for pid, line in self.processes().items() if self._is_of_a_replica(pid)},
            "shared memory": sorted(self._shared_memory()),
            "folders": [str(path) for path in self.paths.replicas.iterdir()],
            "sockets": [str(path) for path in self.paths.run.rglob("*") if path.is_socket() and "/r/" in str(path)],
        }

    def left_behind(self) -> dict[str, Any]:
        """And what a stopped installation still holds besides."""
        return {"all processes": self.processes(), **self.left_of_replicas()}

    def _shared_memory(self) -> set[str]:
        """Of replicas, made since we began. Another installation's is nobody's for a moment, between its end and its
        removal: ours stays.
        """
        found = self._unclaimed()
        deadline = time.monotonic() + 5
        while found and time.monotonic() < deadline:
            threading.Event().wait(0.1)
            found &= self._unclaimed()
        return found

    def _unclaimed(self) -> set[str]:
        """That no living process has mapped."""
        found = {name for name in set(os.listdir("/dev/shm")) - self.shared_memory_before if OF_A_REPLICA.match(name)}
        for maps in Path("/proc").glob("[0-9]*/maps") if found else ():
            try:
                mapped = maps.read_text()
            except OSError:
                continue
            found = {name for name in found if f"/dev/shm/{name}" not in mapped}
        return found

    def logs(self) -> str:
        parts = [f"--- up\n{self.printed.read_text()}"]
        parts += [
            f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-40:])
            for log in sorted(self.paths.logs.rglob("*.log"))
        ]
        return "\n".join(parts)


@contextmanager
def running(**settings: str) -> Iterator[System]:
    """Start, wait, stop, and assert that nothing is left behind."""
    system = System(**settings)
    try:
        system.ready()
        yield system
        system.stop()
        left = system.left_behind()
        assert not any(left.values()), left
    except BaseException:
        print(system.logs())
        raise
    finally:
        system.stop()
        for pid in system.processes():
            os.kill(pid, signal.SIGKILL)
        system.output.close()
        system.printed.unlink()
        shutil.rmtree(system.state, ignore_errors=True)


@contextmanager
def lent(system: System) -> Iterator[System]:
    """To one file of tests: at rest before, and afterwards none of its endpoints, and nothing of their replicas, is
    left.
    """
    wait_until(lambda: [node["standbys_ready"] for node in system.status()["nodes"]] == [1], 120, "a standby is ready")
    yield system
    for endpoint in wait_until(system.status, 60, "its state")["endpoints"]:
        if not endpoint["removed"]:
            system.api.call("DELETE", f"/endpoints/{endpoint['name']}")
    wait_until(lambda: system.status()["nodes"] and not system.status()["endpoints"], 60, "all is at zero")
    wait_until(lambda: not any(system.left_of_replicas().values()), 20, "nothing is left of its replicas")


def shared(**settings: str) -> tuple[Any, Any]:
    """The fixtures `installation` and `system` of a folder whose files take turns at one installation with these
    settings.

    A start takes the time of a minute's tests; what one file does to it the next one survives. Their endpoints have
    names of their own, for rows and events of what was removed stay.
    """

    @pytest.fixture(scope="package")
    def installation() -> Iterator[System]:
        with running(**settings) as started:
            yield started

    @pytest.fixture(scope="module")
    def system(installation: System) -> Iterator[System]:
        with lent(installation) as ours:
            yield ours

    return installation, system


def dump(value: Any) -> str:
    return json.dumps(value, indent=1)
