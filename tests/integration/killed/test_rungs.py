"""Where endpoints rest, with the real engine: parked and back, wrong answers never served, deaths in every phase, no
standby at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from runtime.client import connect_agent
from runtime.loader import bake
from runtime.reap import session_members
from runtime.wire import ReplicaReport
from snapshots.manifest import folder_name
from tests.integration.system import QUESTION, System, wait_until

MIB = 1 << 20
PHASES = ("spawn", "init", "canary")  # of a climb from parked


@pytest.fixture(scope="module")
def rest(system: System) -> str:
    return system.deploy("rest", "--idle-timeout", "0.5", "--zero", "parked", "--slots", "8")


def ask(system: System, key: str, name: str = "rest", tokens: int = 60) -> httpx.Response:
    with system.client(key) as client:
        body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": tokens, "temperature": 0}
        return client.post(f"/e/{name}/v1/chat/completions", json=body)


def works(system: System, key: str, name: str = "rest") -> str:
    """The answer to the question; returns the request's id."""
    answer = ask(system, key, name)
    assert answer.status_code == 200, answer.text
    assert "Pilotlight" in answer.json()["choices"][0]["message"]["content"]
    request_id: str = answer.headers["x-request-id"]
    return request_id


def until_parked(system: System, name: str = "rest") -> dict[str, Any]:
    def parked() -> list[dict[str, Any]]:
        return [
            replica for replica in system.replicas(name) if replica["state"] == "parked" and replica["private_bytes"]
        ]

    found: dict[str, Any] = wait_until(parked, 90, f"{name} has a parked replica")[0]
    return found


def cpu_ticks(session: int) -> int:
    stats = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in session_members(session)]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats)


def first_token_seconds(client: httpx.Client, name: str) -> float:
    body = {"prompt": "x", "max_tokens": 1, "stream": True}
    begun = time.monotonic()
    with client.stream("POST", f"/e/{name}/v1/completions", json=body) as answer:
        assert answer.status_code == 200
        next(line for line in answer.iter_lines() if line.startswith("data: "))
        return time.monotonic() - begun


# Parked


def test_parked_and_back(system: System, rest: str) -> None:
    request_id = works(system, rest)
    cold = system.request(request_id)
    parked = until_parked(system)
    processes = session_members(parked["pid"])
    assert len(processes) == 2 and parked["kv_cache_bytes"] == 0
    assert parked["private_bytes"] == parked["needs_bytes"] < 150 * MIB
    before = cpu_ticks(parked["pid"])
    begun = time.monotonic()
    seconds = []
    with system.client(rest) as client:
        assert client.get("/readyz").status_code == 200  # connected
        for climb in range(1, 6):
            seconds.append(first_token_seconds(client, "rest"))
            assert until_parked(system)["climb"] == climb
    spent = (cpu_ticks(parked["pid"]) - before) / os.sysconf("SC_CLK_TCK")
    print(f"first token from parked: {sorted(seconds)} s; CPU {spent:.2f} s in {time.monotonic() - begun:.1f} s")
    request_id = works(system, rest)
    row = system.request(request_id)
    assert row["start"] == "cold" and row["replica_id"] == parked["replica_id"]
    names = [phase["name"] for phase in row["phases"]]
    assert [name for name in names if name in PHASES] == list(PHASES) and "load" not in names
    assert min(seconds) < cold["first_byte_ms"] / 1000 / 2, "far sooner than from a standby"
    assert session_members(parked["pid"]) == processes


def test_demand_that_comes_while_it_parks_is_served(system: System, rest: str) -> None:
    with system.client(rest) as client:
        for pause in (0.5, 0.55, 0.6, 0.65, 0.75):
            works(system, rest)
            time.sleep(pause)  # the idle timeout, and a little: what is tested is a call at that moment
            assert first_token_seconds(client, "rest") < 20


def test_a_parked_replica_that_is_killed_is_forgotten_and_the_next_call_starts_another(
    system: System, rest: str
) -> None:
    works(system, rest)
    parked = until_parked(system)
    os.kill(parked["pid"], signal.SIGKILL)
    wait_until(lambda: not system.replicas("rest"), 30, "it is forgotten")
    wait_until(lambda: not session_members(parked["pid"]), 30, "nothing of it is left")
    request_id = works(system, rest)
    assert system.request(request_id)["replica_id"] != parked["replica_id"]


def test_a_new_activator_adopts_it(system: System, rest: str) -> None:
    works(system, rest)
    parked = until_parked(system)
    activator = system.pid_of("activator")
    os.kill(activator, signal.SIGKILL)
    wait_until(
        lambda: system.pid_of("activator") != activator and system.status()["nodes"], 90, "the activator is back"
    )
    again = until_parked(system)
    assert (again["replica_id"], again["pid"]) == (parked["replica_id"], parked["pid"])
    request_id = works(system, rest)
    assert system.request(request_id)["replica_id"] == parked["replica_id"]


# Deaths in every phase


async def killed_after(system: System, key: str, phase: str, name: str, *, climb: int = 0) -> httpx.Response:
    """Ask at zero; when the agent says that this phase is done, kill the replica's session. Returns once its death is
    known: on a busy machine it may have served by then, and is sent no more.
    """
    stream, _ = await connect_agent(system.paths.address("agent"))
    call, killed = asyncio.ensure_future(asyncio.to_thread(ask, system, key, name)), ("", 0)
    try:
        async with asyncio.timeout(120):
            async for frame in stream:
                if (
                    isinstance(frame, ReplicaReport)
                    and frame.climb == climb
                    and any(done.name == phase for done in frame.phases)
                ):
                    killed = frame.replica_id, frame.pid
                    for pid in session_members(frame.pid):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    break
    finally:
        stream.close()
    answer = await call

    def known() -> bool:
        living = {(replica["replica_id"], replica["pid"]) for replica in system.replicas(name)}
        return bool(system.status()["nodes"]) and killed not in living

    await asyncio.to_thread(wait_until, known, 60, "its death is known")
    return answer


def served_or_told(system: System, key: str, name: str, answer: httpx.Response) -> None:
    """An answer, or a clear error that says when to come back; and then it works."""
    assert answer.status_code in (200, 503), answer.text
    if answer.status_code == 503:
        assert answer.json()["error"]["message"] and "retry-after" in answer.headers
        wait_until(
            lambda: ask(system, key, name).status_code == 200,
            60,
            "the pause after the failure is over, and it serves again",
        )
    works(system, key, name)


def revision_of(system: System, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(e for e in system.status()["endpoints"] if e["name"] == name)["revisions"][-1]
    return found


@pytest.mark.parametrize("phase", ["spawn", "load", "init", "canary"])
async def test_a_death_in_each_phase_of_a_start(system: System, phase: str) -> None:
    name = "fall"
    key = await asyncio.to_thread(system.deploy, name, "--idle-timeout", "0.2", "--slots", "8")
    await asyncio.to_thread(system.until_zero, name)
    answer = await killed_after(system, key, phase, name)
    await asyncio.to_thread(served_or_told, system, key, name, answer)


@pytest.mark.parametrize("phase", PHASES)
async def test_a_death_in_each_phase_of_a_climb_from_parked(system: System, rest: str, phase: str) -> None:
    await asyncio.to_thread(works, system, rest)
    parked = await asyncio.to_thread(until_parked, system)
    answer = await killed_after(system, rest, phase, "rest", climb=parked["climb"] + 1)
    # on a busy machine it may be ready, and have the request, before the signal reaches it
    if answer.status_code != 200:
        row = await asyncio.to_thread(system.request, answer.headers["x-request-id"])
        assert row["replica_id"] == parked["replica_id"], (
            f"whoever it did not have is held, and served from a standby: {answer.text}"
        )
    await asyncio.to_thread(served_or_told, system, rest, "rest", answer)
    wait_until(lambda: not session_members(parked["pid"]), 30, "nothing of it is left")


# Wrong answers


def mismatches(system: System) -> list[dict[str, Any]]:
    return [
        event
        for event in system.api.call("GET", "/endpoints/rest/events")["data"]
        if event["kind"] == "canary_mismatch"
    ]


def test_a_wrong_answer_never_serves_and_the_next_rungs_down_do(system: System, rest: str) -> None:
    works(system, rest)
    parked = until_parked(system)
    folder = system.paths.baked / folder_name(system.digest("rest"))
    (copy,) = folder.glob("*.safetensors")
    damage(copy)
    request_id = works(system, rest)
    served = system.request(request_id)["replica_id"]
    assert served != parked["replica_id"]
    events = wait_until(lambda: found if len(found := mismatches(system)) > 1 else None, 30, "two events")
    assert len(events) == 2
    assert "plain is next" in events[0]["text"] and "standby is next" in events[1]["text"]
    assert parked["replica_id"] in events[1]["text"]
    assert [rung for _, rung in revision_of(system, "rest")["bad_rungs"]] == ["parked"], "the other was made anew"
    assert not copy.exists(), "the copy is gone"
    assert "canary" in system.cli("events", "rest")
    system.until_zero("rest")
    system.request(works(system, rest))
    assert list(folder.glob("*.safetensors")) == [copy], "from verified bytes, a copy as before"


def damage(copy: Path) -> None:
    """Other bytes in place, believed in: its stamp says that nothing has touched it."""
    with copy.open("r+b") as opened:
        begin = bake.read_layout(copy).pieces[0].begin
        opened.seek(begin)
        data = opened.read()
        opened.seek(begin)
        opened.write(bytes(byte ^ 0x41 for byte in data[: 1 << 20]) + data[1 << 20 :])
    bake.stamp_of(copy).write_text(bake.state_of(copy))


# No standby


def test_where_everything_rests_on_staged_no_standby_is_kept(system: System, rest: str) -> None:
    system.cli("rm", "rest")
    system.cli("rm", "fall")
    key = system.deploy("cold", "--idle-timeout", "0.2", "--zero", "staged", "--slots", "8")
    wait_until(lambda: [node["standbys_ready"] for node in system.status()["nodes"]] == [0], 60, "no standby")
    wait_until(
        lambda: not [line for line in system.processes().values() if "-m runtime.fork.standby " in line],
        60,
        "its process is gone",
    )
    request_id = works(system, key, "cold")
    assert system.request(request_id)["start"] == "cold"
