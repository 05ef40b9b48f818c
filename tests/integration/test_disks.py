"""A small disk that fills, and Postgres away: what runs finishes, new calls are told why, restarts change nothing, all
heals by itself.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.system import QUESTION, System, running, wait_until
from tests.small_disks import fill, small_disk

DISK = 1400 << 20
BOUNDS = {
    "PILOTLIGHT_DISK__FLOOR_BYTES": str(24 << 20),
    "PILOTLIGHT_DISK__RESERVE_BYTES": str(8 << 20),
    "PILOTLIGHT_DISK__POSTGRES_RESERVE_BYTES": str(16 << 20),
    "PILOTLIGHT_DISK__WAL_BYTES": str(16 << 20),
}
LONG = {"model": "demo", "prompt": "x", "max_tokens": 900, "ignore_eos": True, "stream": True}
USAGE = re.compile(r"pilotlight-usage (\d+);\d+;(\d+)")


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    folder = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))
    try:
        with small_disk(folder, DISK), running(PILOTLIGHT_STATE_DIR=str(folder), **BOUNDS) as system:
            yield system
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def demo(system: System) -> str:
    return system.deploy("demo", "--idle-timeout", "600", "--slots", "8")


class Billed:
    """What callers were told they used, by request: what the rows must say."""

    def __init__(self, system: System, key: str) -> None:
        self.system, self.key = system, key
        self.told: dict[str, tuple[int, int]] = {}

    def ask(self) -> httpx.Response:
        """One call; what it used is remembered where it was served."""
        with self.system.client(self.key) as client:
            body = {
                "model": "demo",
                "messages": [{"role": "user", "content": QUESTION}],
                "max_tokens": 20,
                "temperature": 0,
            }
            answer = client.post("/e/demo/v1/chat/completions", json=body)
        if answer.status_code == 200:
            usage = answer.json()["usage"]
            self.told[answer.headers["x-request-id"]] = usage["prompt_tokens"], usage["completion_tokens"]
        return answer

    def served(self, seconds: float, what: str) -> None:
        """Ask until it is served; whatever else is answered is a 503."""

        def ask() -> bool:
            try:
                answer = self.ask()
            except httpx.TransportError:  # the router itself has just been started
                return False
            assert answer.status_code in (200, 503), answer.text
            return answer.status_code == 200

        wait_until(ask, seconds, what)

    def refused(self, seconds: float = 90) -> httpx.Response:
        """Ask until the disk is the reason for a refusal."""

        def ask() -> httpx.Response | None:
            try:
                answer = self.ask()
            except httpx.TransportError:
                return None
            return answer if answer.status_code == 503 and answer.json()["error"]["code"] == "disk_full" else None

        answer: httpx.Response = wait_until(ask, seconds, "new calls are refused")
        return answer

    def rows(self) -> None:
        """Every call that was served has its row, with its tokens."""
        for request_id, tokens in self.told.items():
            row = self.system.request(request_id, seconds=90)
            assert (row["input_tokens"], row["output_tokens"]) == tokens, row

    def nobody_else(self) -> None:
        """No other call was charged."""
        charged = [row for row in self.system.usage("demo", len(self.told)) if row["output_tokens"]]
        assert {row["event_id"] for row in charged} <= self.told.keys(), "somebody was charged who was told nothing"


def long_answer(lines: Iterator[str], billed: Billed, request_id: str) -> str:
    """The rest of a stream, to its end."""
    text = "\n".join(lines)
    assert "data: [DONE]" in text, text[-500:]
    match = USAGE.search(text)
    if match:
        billed.told[request_id] = int(match[1]), int(match[2])
    return text


def kill(system: System, module: str) -> None:
    """-9, and wait for the next one."""
    before = system.pid_of(module)
    os.kill(before, signal.SIGKILL)
    wait_until(
        lambda: system.up.poll() is not None or system.pid_of(module) != before, 60, f"{module} is started again"
    )
    assert system.up.poll() is None, system.printed.read_text()


def test_a_full_disk(system: System, demo: str) -> None:
    billed = Billed(system, demo)
    billed.served(120, "the first call")
    with system.client(demo) as client, client.stream("POST", "/e/demo/v1/completions", json=LONG) as answer:
        lines, request_id = answer.iter_lines(), answer.headers["x-request-id"]
        assert answer.status_code == 200 and next(lines)
        filler = fill(system.state)
        told = billed.refused()
        assert int(told.headers["retry-after"]) >= 1 and re.search(
            r"Disk full: .* free besides the reserve, 25 MB needed", told.text
        )
        long_answer(lines, billed, request_id)
    fill(system.state)  # what the reserve has given up, too
    for module in ("activator", "router.ledger", "router.admin", "router", "runtime"):
        kill(system, module)
    billed.refused()
    assert "new calls are refused" in system.cli("doctor", code=1)
    system.stop()
    system.begin()
    billed.refused()
    assert "disk full" in system.cli("ps")
    filler.unlink()
    billed.served(120, "a call is served again once there is room")
    for share in ("spool", "journal", "logs", "Postgres"):
        assert share in system.cli("ps")
    billed.rows()
    billed.nobody_else()
    wait_until(lambda: "of the reserve" not in system.cli("doctor"), 90, "the reserve is kept again")


def test_postgres_away(system: System, demo: str) -> None:
    billed = Billed(system, demo)
    billed.served(120, "a call")
    version = system.paths.postgres / "data" / "PG_VERSION"
    postmaster = int((version.parent / "postmaster.pid").read_text().split()[0])
    version.rename(version.with_suffix(".away"))  # it cannot start
    os.kill(postmaster, signal.SIGKILL)
    billed.served(120, "a warm call needs no Postgres")
    wait_until(lambda: "It is tried again for ever" in system.printed.read_text(), 90, "it is told")
    kill(system, "activator")
    billed.served(120, "a call goes on")
    system.stop()  # and every replica with it
    system.begin()
    wait_until(lambda: "Starting without Postgres" in system.printed.read_text(), 90, "up starts without Postgres")
    billed.served(120, "a wake without Postgres")
    kill(system, "activator")
    kill(system, "router")
    billed.served(120, "a call after both were restarted")
    assert "does not answer" in system.cli("ps") and system.up.poll() is None
    with system.client(demo) as client:
        assert client.get("/v1/models").status_code == 200
    version.with_suffix(".away").rename(version)
    billed.rows()
