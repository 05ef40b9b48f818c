"""One small installation for what only a real engine shows: forks have randomness of their own, and every seam is used. Real vLLM on CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.system import System, running, wait_until

CREATIVE = {"prompt": "Once upon a time", "max_tokens": 24, "temperature": 1.0, "ignore_eos": True}


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with running() as system:
        yield system


def told(system: System, name: str, key: str, **more: Any) -> str:
    """What the endpoint makes of the same question."""
    with system.client(key) as client:
        answer = client.post(f"/e/{name}/v1/completions", json={"model": name} | CREATIVE | more)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["text"]
    return text


def ask_the_replica(replica: dict[str, Any], name: str) -> str:
    transport = httpx.HTTPTransport(uds=replica["address"].removeprefix("unix:"))
    with httpx.Client(transport=transport, timeout=60) as client:
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
