"""Ten endpoints at zero: what every process of the installation costs, by PSS, and what of it is ours.

PSS (of `smaps_rollup`) shares a page among those that map it, so that a sum counts it once. One endpoint is woken and
goes back to zero before, so that every process has done what it does all day.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from loadtests.bench.inventory import family, memory_of
from pilotlight.cli.api import Api, ApiError
from pilotlight.ports import free_port
from pilotlight.settings import Paths
from snapshots.pack import pack

ENDPOINTS = 10
QUESTION = "What is Pilotlight?"
REST_SECONDS = 5.0  # after the last replica is gone
OURS_MB, STANDBY_MB = 250, 500  # the goals; a MB is 10⁶ bytes


async def measure() -> dict[str, Any]:
    return await asyncio.to_thread(_measure)


def _measure() -> dict[str, Any]:
    model = Path(__file__).parents[2] / "snapshots" / "demo" / "model"
    with _up() as (paths, process):
        api = Api(paths)
        digest = pack(model, paths.snapshots).digest
        for number in range(ENDPOINTS):
            api.call("PUT", f"/endpoints/e{number}", json={"digest": digest, "idle_timeout_seconds": 1})
        _wake(api, "e0")
        _until(
            lambda: not any(e["revisions"][-1]["replicas"] for e in api.call("GET", "/status")["endpoints"]),
            60,
            "all are at zero",
        )
        time.sleep(REST_SECONDS)
        return _figures(_processes(paths.state, process.pid))


def _figures(processes: list[tuple[str, int]]) -> dict[str, Any]:
    """Of (role, PSS in bytes): a line a role, then the sums and the goals."""
    by_role: defaultdict[str, list[int]] = defaultdict(list)
    for role, nbytes in processes:
        by_role[role].append(nbytes)
    lines = {f"PSS, {role} × {len(all_of)}, MB": _mb(sum(all_of)) for role, all_of in sorted(by_role.items())}
    standby = sum(by_role.pop("standby", []))
    ours = sum(map(sum, by_role.values()))
    return {
        "endpoints at zero": ENDPOINTS,
        "replica processes": len(by_role.get("other", [])),
        **lines,
        f"ours without the standby, Postgres included, MB (goal {OURS_MB})": _mb(ours),
        "of it without Postgres, MB": _mb(ours - sum(by_role["postgres"])),
        f"standby, MB (goal {STANDBY_MB})": _mb(standby),
        "goals met": ours <= OURS_MB * 1_000_000 and 0 < standby <= STANDBY_MB * 1_000_000,
    }


def _mb(nbytes: int) -> float:
    return round(nbytes / 1_000_000, 1)


def _processes(state: Path, up: int) -> list[tuple[str, int]]:
    """(role, PSS in bytes) of `up`, of all that descends from it, and of all that lives in its state folder."""
    found = []
    for pid, role in family(state, [up]):
        with contextlib.suppress(OSError):  # it ended meanwhile
            found.append((role, memory_of(pid).pss))
    return found


@contextmanager
def _up() -> Iterator[tuple[Paths, subprocess.Popen[bytes]]]:
    """`pilotlight up` as a user starts it, with a rehearsed standby; ended and removed afterwards."""
    state = Path(tempfile.mkdtemp(prefix="pl-bench-", dir="/tmp"))
    state.chmod(0o711)
    paths = Paths(state)
    ours = {
        "PILOTLIGHT_STATE_DIR": str(state),
        "PILOTLIGHT_ROUTER__PORT": str(free_port()),
        "PILOTLIGHT_ROUTER__METRICS_PORT": str(free_port(8)),
    }
    environ = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"} | ours
    with (state / "up.out").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pilotlight.cli.main", "up"],
            env=environ,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _until(paths.client.exists, 60, "the router answers")
        api = Api(paths)
        _until(
            lambda: any(node["standbys_ready"] for node in api.call("GET", "/status")["nodes"]),
            120,
            "a standby is ready",
        )
        yield paths, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(90)
        shutil.rmtree(state, ignore_errors=True)


def _wake(api: Api, name: str) -> None:
    key = api.call("POST", f"/endpoints/{name}/keys", json={"name": "bench"})["key"]
    body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 16}
    headers = {"authorization": f"Bearer {key}"}
    path = f"/e/{name}/v1/chat/completions"
    # a new key is a 401 first
    _until(lambda: api.succeeds("POST", path, json=body, headers=headers, timeout=120), 120, f"{name} is woken")


def _until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (ApiError, httpx.HTTPError):
            pass  # something of it is not up yet
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)
