"""SIGSTOP of each process: it neither dies nor speaks. What callers see, and how long until all is as before, in one table."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.system import QUESTION, System, running, wait_until
from tests.integration.test_deaths import LONG, _session

Row = tuple[str, str, float]


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with running(PILOTLIGHT_ROUTER__WORKERS="2") as system:
        yield system


@pytest.fixture(scope="module")
def demo(system: System) -> str:
    return system.deploy("demo", "--idle-timeout", "5", "--slots", "16")


@pytest.fixture(scope="module")
def table() -> Iterator[list[Row]]:
    rows: list[Row] = []
    yield rows
    print("\n| stopped | callers see | served, or replaced, after |\n|---|---|---|")
    for victim, seen, seconds in rows:
        print(f"| {victim} | {seen} | {seconds:.1f} s |")


def ask(system: System, key: str) -> httpx.Response:
    with system.client(key, timeout=120) as client:
        body = {"model": "demo", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 20, "temperature": 0}
        return client.post("/e/demo/v1/chat/completions", json=body)


def works(system: System, key: str) -> None:
    answer = ask(system, key)
    assert answer.status_code == 200, answer.text


def stop(pid: int) -> float:
    os.kill(pid, signal.SIGSTOP)
    return time.monotonic()


def replaced(system: System, find: Callable[[], int], pid: int, seconds: float) -> None:
    wait_until(lambda: find() not in (0, pid), seconds, "the stopped process is replaced")
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 10, "and gone")


def serves_with_a_standby(system: System) -> bool:
    return [node["standbys_ready"] for node in system.status()["nodes"]] == [1]


@pytest.mark.parametrize("victim", ["API process", "engine core"])
def test_a_replica_in_the_middle_of_a_stream(system: System, demo: str, table: list[Row], victim: str) -> None:
    works(system, demo)
    replica = system.until_ready("demo")
    core = next(pid for pid in _session(replica["pid"]) if pid != replica["pid"])
    lines: list[str] = []
    with system.client(demo, timeout=60) as client, client.stream("POST", "/e/demo/v1/completions", json=LONG) as answer:
        for line in answer.iter_lines():
            lines.append(line)
            if len(lines) == 3:
                began = stop(replica["pid"] if victim == "API process" else core)
    told = time.monotonic() - began
    last = [line for line in lines if line.startswith("data: ")][-1]
    assert "error" in json.loads(last[6:]), last
    works(system, demo)
    seconds = time.monotonic() - began
    assert seconds < 40 and system.until_ready("demo")["replica_id"] != replica["replica_id"]
    wait_until(lambda: not _session(replica["pid"]), 5, "nothing of it is left")
    events = system.cli("events", "demo")
    assert "hung: its" in events, events
    table.append((f"replica: {victim}", f"running stream: an error event after {told:.1f} s; the next call: 200", seconds))


def test_an_idle_standby(system: System, demo: str, table: list[Row]) -> None:
    works(system, demo)
    wait_until(lambda: serves_with_a_standby(system), 60, "a standby is ready")
    standby = system.pid_of("runtime.standby")
    began = stop(standby)
    works(system, demo)
    replaced(system, lambda: system.pid_of("runtime.standby"), standby, 30)
    wait_until(lambda: serves_with_a_standby(system), 60, "another standby is ready")
    table.append(("standby, idle", "nothing", time.monotonic() - began))


def test_a_standby_with_an_order_in_hand(system: System, demo: str, table: list[Row]) -> None:
    system.until_zero("demo")
    wait_until(lambda: serves_with_a_standby(system), 60, "a standby is ready")
    began = stop(system.pid_of("runtime.standby"))
    works(system, demo)
    table.append(("standby, with an order", "held, then 200", time.monotonic() - began))


def test_the_activator(system: System, demo: str, table: list[Row]) -> None:
    works(system, demo)
    activator = system.pid_of("activator")
    began = stop(activator)
    works(system, demo)
    replaced(system, lambda: system.pid_of("activator"), activator, 40)
    wait_until(lambda: system.status()["nodes"], 30, "the next one has its node")
    works(system, demo)
    table.append(("activator", "warm calls: 200", time.monotonic() - began))


def test_a_worker_of_the_router(system: System, demo: str, table: list[Row]) -> None:
    works(system, demo)
    worker = system.pid_of("router.worker")
    began = stop(worker)
    answers = [ask(system, demo).status_code for _ in range(4)]
    replaced(system, lambda: system.pid_of("router.worker"), worker, 40)
    assert answers == [200] * 4, "the other worker accepts"
    table.append(("one of two router workers", "new connections: 200 by the other; its own: closed", time.monotonic() - began))


def test_the_ledger(system: System, demo: str, table: list[Row]) -> None:
    ledger = system.pid_of("router.ledger")
    began = stop(ledger)
    answer = ask(system, demo)
    assert answer.status_code == 200
    replaced(system, lambda: system.pid_of("router.ledger"), ledger, 40)
    row = system.request(answer.headers["x-request-id"], 40)
    assert row["output_tokens"] == answer.json()["usage"]["completion_tokens"]
    table.append(("ledger", "200; the row is settled by the next one", time.monotonic() - began))


def test_postgres(system: System, demo: str, table: list[Row]) -> None:
    def postmaster() -> int:
        file = system.paths.postgres / "data" / "postmaster.pid"
        return int((file.read_text().split() or ["0"])[0]) if file.exists() else 0

    works(system, demo)
    stopped = postmaster()
    began = stop(stopped)
    answer = ask(system, demo)
    assert answer.status_code == 200
    replaced(system, postmaster, stopped, 60)
    system.request(answer.headers["x-request-id"], 60)
    table.append(("Postgres", "200; rows are settled once it is back", time.monotonic() - began))


def test_the_agent(system: System, demo: str, table: list[Row]) -> None:
    works(system, demo)
    agent = system.pid_of("runtime")
    began = stop(agent)
    works(system, demo)
    replaced(system, lambda: system.pid_of("runtime"), agent, 90)
    found = time.monotonic() - began
    wait_until(lambda: ask(system, demo).status_code == 200, 60, "it serves again")
    table.append(("agent", f"warm calls: 200; replaced after {found:.0f} s", time.monotonic() - began))
