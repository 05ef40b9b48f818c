"""SIGSTOP of each process: it neither dies nor speaks. What callers see, and how long until all is as before, in one
table.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.killed.test_deaths import LONG, _session
from tests.integration.system import QUESTION, System, wait_until

Row = tuple[str, str, float]
BY_WORK_SECONDS = 60.0  # `runtime.hang_seconds`: what is found sooner is found by its silence


@pytest.fixture(scope="module")
def key(system: System) -> str:
    return system.deploy("hangs", "--idle-timeout", "600", "--slots", "16")


@pytest.fixture(scope="module")
def table() -> Iterator[list[Row]]:
    rows: list[Row] = []
    yield rows
    print("\n| stopped | callers see | served, or replaced, after |\n|---|---|---|")
    for victim, seen, seconds in rows:
        print(f"| {victim} | {seen} | {seconds:.1f} s |")


def ask(system: System, key: str) -> httpx.Response:
    body = {"model": "hangs", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 20, "temperature": 0}
    with system.client(key) as client:
        return client.post("/e/hangs/v1/chat/completions", json=body)


def works(system: System, key: str) -> None:
    answer = ask(system, key)
    assert answer.status_code == 200, answer.text


def stop(pid: int) -> float:
    os.kill(pid, signal.SIGSTOP)
    return time.monotonic()


def replaced(system: System, find: Callable[[], int], pid: int, seconds: float) -> None:
    wait_until(lambda: find() not in (0, pid), seconds, "the stopped process is replaced")
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 30, "and gone")


def serves_with_a_standby(system: System) -> bool:
    return [node["standbys_ready"] for node in system.status()["nodes"]] == [1]


@pytest.mark.parametrize("victim", ["API process", "engine core"])
def test_a_replica_in_the_middle_of_a_stream(system: System, key: str, table: list[Row], victim: str) -> None:
    works(system, key)
    replica = system.until_ready("hangs")
    core = next(pid for pid in _session(replica["pid"]) if pid != replica["pid"])
    lines: list[str] = []
    with (
        system.client(key) as client,
        client.stream("POST", "/e/hangs/v1/completions", json=LONG | {"model": "hangs"}) as answer,
    ):
        for line in answer.iter_lines():
            lines.append(line)
            if len(lines) == 3:
                began = stop(replica["pid"] if victim == "API process" else core)
    told = time.monotonic() - began
    last = [line for line in lines if line.startswith("data: ")][-1]
    assert "error" in json.loads(last[6:]), last
    works(system, key)
    seconds = time.monotonic() - began
    assert seconds < BY_WORK_SECONDS and system.until_ready("hangs")["replica_id"] != replica["replica_id"]
    wait_until(lambda: not _session(replica["pid"]), 30, "nothing of it is left")
    events = system.cli("events", "hangs")
    assert "hung: its" in events, events
    table.append(
        (f"replica: {victim}", f"running stream: an error event after {told:.1f} s; the next call: 200", seconds)
    )


def test_an_idle_standby(system: System, key: str, table: list[Row]) -> None:
    works(system, key)
    wait_until(lambda: serves_with_a_standby(system), 120, "a standby is ready")
    standby = system.pid_of("runtime.fork.standby")
    began = stop(standby)
    works(system, key)
    replaced(system, lambda: system.pid_of("runtime.fork.standby"), standby, 90)
    wait_until(lambda: serves_with_a_standby(system), 120, "another standby is ready")
    table.append(("standby, idle", "nothing", time.monotonic() - began))


def test_a_standby_with_an_order_in_hand(system: System, key: str, table: list[Row]) -> None:
    system.to_zero("hangs")
    wait_until(lambda: serves_with_a_standby(system), 120, "a standby is ready")
    began = stop(system.pid_of("runtime.fork.standby"))
    works(system, key)
    table.append(("standby, with an order", "held, then 200", time.monotonic() - began))


def test_the_activator(system: System, key: str, table: list[Row]) -> None:
    works(system, key)
    activator = system.pid_of("activator")
    began = stop(activator)
    works(system, key)
    replaced(system, lambda: system.pid_of("activator"), activator, 90)
    wait_until(lambda: system.status()["nodes"], 90, "the next one has its node")
    works(system, key)
    table.append(("activator", "warm calls: 200", time.monotonic() - began))


def test_a_worker_of_the_router(system: System, key: str, table: list[Row]) -> None:
    works(system, key)
    worker = system.pid_of("router.worker")
    began = stop(worker)
    answers = [ask(system, key).status_code for _ in range(4)]
    replaced(system, lambda: system.pid_of("router.worker"), worker, 90)
    assert answers == [200] * 4, "the other worker accepts"
    table.append(
        ("one of two router workers", "new connections: 200 by the other; its own: closed", time.monotonic() - began)
    )


def test_the_ledger(system: System, key: str, table: list[Row]) -> None:
    ledger = system.pid_of("router.ledger")
    began = stop(ledger)
    answer = ask(system, key)
    assert answer.status_code == 200
    replaced(system, lambda: system.pid_of("router.ledger"), ledger, 90)
    row = system.request(answer.headers["x-request-id"], 90)
    assert row["output_tokens"] == answer.json()["usage"]["completion_tokens"]
    table.append(("ledger", "200; the row is settled by the next one", time.monotonic() - began))


def test_postgres(system: System, key: str, table: list[Row]) -> None:
    def postmaster() -> int:
        file = system.paths.postgres / "data" / "postmaster.pid"
        return int((file.read_text().split() or ["0"])[0]) if file.exists() else 0

    works(system, key)
    stopped = postmaster()
    began = stop(stopped)
    answer = ask(system, key)
    assert answer.status_code == 200
    replaced(system, postmaster, stopped, 90)
    system.request(answer.headers["x-request-id"], 90)
    table.append(("Postgres", "200; rows are settled once it is back", time.monotonic() - began))


def test_the_agent(system: System, key: str, table: list[Row]) -> None:
    works(system, key)
    agent = system.pid_of("runtime")
    began = stop(agent)
    works(system, key)
    replaced(system, lambda: system.pid_of("runtime"), agent, 120)
    found = time.monotonic() - began
    wait_until(lambda: ask(system, key).status_code == 200, 120, "it serves again")
    table.append(("agent", f"warm calls: 200; replaced after {found:.0f} s", time.monotonic() - began))
