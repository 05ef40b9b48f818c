"""One small installation for what only a real engine shows: forks have randomness of their own, and every seam is used.
Real vLLM on CPU.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from pilotlight import frames
from runtime.engine.seams import SEAMS
from runtime.wire import ArgumentsChecked, CheckArguments, FromAgent
from tests.integration.system import System, wait_until

# Written at `ready`, when nobody has called or parked it yet; `test_metering*` and `test_rungs` show what these do.
UNUSED_BEFORE_READY = {"give back", "tokenizer of grammars, when asked for", "sampling parameters"}
CREATIVE = {"prompt": "Once upon a time", "max_tokens": 24, "temperature": 1.0, "ignore_eos": True}


def told(system: System, name: str, key: str, **more: Any) -> str:
    """What the endpoint makes of the same question."""
    with system.client(key) as client:
        answer = client.post(f"/e/{name}/v1/completions", json={"model": name} | CREATIVE | more)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["text"]
    return text


def ask_the_replica(replica: dict[str, Any], name: str) -> str:
    transport = httpx.HTTPTransport(uds=replica["address"].removeprefix("unix:"))
    with httpx.Client(transport=transport, timeout=300) as client:
        answer = client.post("http://replica/v1/completions", json={"model": name} | CREATIVE)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["text"]
    return text


def over_two_wakes(system: System, name: str, key: str, **more: Any) -> tuple[str, str]:
    first = told(system, name, key, **more)
    system.until_zero(name)
    return first, told(system, name, key, **more)


def test_without_a_seed_two_replicas_and_two_wakes_tell_different_stories(system: System) -> None:
    key = system.deploy("free", "--idle-timeout", "1", "--slots", "1", "--max-replicas", "2")
    first, second = over_two_wakes(system, "free", key)
    assert first != second
    system.until_zero("free")
    first, second = over_two_wakes(system, "free", key, seed=5)
    assert first == second, "a request's own seed reproduces"


def test_two_replicas_at_once_tell_different_stories(system: System) -> None:
    system.deploy("pair", "--min-replicas", "2", "--max-replicas", "2")

    def both() -> list[dict[str, Any]] | None:
        ready = [replica for replica in system.replicas("pair") if replica["state"] == "ready"]
        return ready if len(ready) == 2 else None

    one, other = wait_until(both, 120, "two replicas are ready")
    assert ask_the_replica(one, "pair") != ask_the_replica(other, "pair")


def test_the_seed_of_a_revision_is_its_replicas(system: System) -> None:
    key = system.deploy("seeded", "--idle-timeout", "1", "--engine-arg", "seed=7")
    first, second = over_two_wakes(system, "seeded", key)
    assert first == second


def checked(system: System, digest: str, **engine_args: str | int | float | bool) -> ArgumentsChecked:
    """What this node's agent says of them."""

    async def ask() -> ArgumentsChecked:
        agent = await frames.connect(system.paths.address("agent"), FromAgent)
        try:
            agent.send(CheckArguments(check_id="c1", digest=digest, engine_args=engine_args))
            async with asyncio.timeout(20):
                async for frame in agent:
                    if isinstance(frame, ArgumentsChecked):
                        return frame
        finally:
            agent.close()
        raise AssertionError("the agent has gone")

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("engine_args", "told"),
    [
        ({}, ""),
        ({"dtype": "float32", "max_model_len": 256, "compilation-config.mode": 0, "graphs-when-idle": True}, ""),
        ({"max_model_len": "many"}, "argument --max-model-len: invalid human_readable_int_or_auto value: 'many'"),
        (
            {"max_modl_len": 256},
            "engine argument max-modl-len: vLLM 0.32.0 has none of that name; is it max-model-len?",
        ),
        ({"max-model": 256}, "engine argument max-model: vLLM 0.32.0 has none of that name"),
        ({"enforce-eager": "yes"}, "engine argument enforce-eager: write true or false, not 'yes'"),
        ({"max-num-seqs": 0}, "engine argument max-num-seqs: Input should be greater than or equal to 1"),
        (
            {"max-model-len": 10_000_000},
            "User-specified max_model_len (10000000) is greater than the derived max_model_len",
        ),
        ({"load-format": "folded"}, "Load format `folded` is not supported"),
        ({"tool-call-parser": "nobodys", "enable-auto-tool-choice": True}, "invalid tool call parser: nobodys"),
    ],
)
def test_the_engines_own_parser_says_what_is_wrong_with_an_argument(
    system: System, engine_args: dict[str, Any], told: str
) -> None:
    digest = system.api.call("GET", "/status")["endpoints"][0]["revisions"][0]["digest"]
    answer = checked(system, digest, **engine_args)
    assert answer.checked
    assert told in answer.reason if told else answer.reason == ""
    assert any(node["standbys_ready"] for node in system.status()["nodes"]), "the standby goes on"


def test_every_seam_is_there_as_written_down_and_is_gone_through_by_one_start(system: System) -> None:
    """Else an engine that no longer calls it would be slower, or count nothing, and nobody would hear of it."""
    key = system.deploy("used", "--idle-timeout", "600")
    told(system, "used", key)
    (replica,) = system.replicas("used")
    file = system.paths.replicas / replica["replica_id"] / "seams.json"
    found = json.loads(wait_until(file.is_file, 20, "the replica says which seams it used") and file.read_text())
    assert found["left_out"] == []
    assert found["used"].keys() == SEAMS.keys()
    unused = {name for name, uses in found["used"].items() if not uses and SEAMS[name].device != "cuda"}
    assert unused == UNUSED_BEFORE_READY
