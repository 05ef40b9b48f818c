"""Two endpoints and room for one, with the real engine: whoever is called is answered, and none of it counts as a
failure.
"""

from __future__ import annotations

import asyncio
import time

from tests.integration.crowded.conftest import LEAST_STAY
from tests.integration.crowded.test_scaling import stream
from tests.integration.system import QUESTION, System, wait_until

NAMES = ("left", "right")
BODY = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 4}


def deploy_both(system: System) -> dict[str, str]:
    """Each with a cache that fits once; returns their keys."""
    (node,) = system.status()["nodes"]
    cache = str(int(0.6 * (node["budget_bytes"] - node["committed_bytes"])))
    return {
        name: system.deploy(name, "--engine-arg", f"kv-cache-memory-bytes={cache}", "--idle-timeout", "600")
        for name in NAMES
    }


def lines(system: System, action: str) -> int:
    return (system.paths.logs / "activator.log").read_text().count(f'"action": "{action}"')


async def test_alternating_calls_are_all_answered_with_at_most_one_switch_per_least_stay(system: System) -> None:
    keys = await asyncio.to_thread(deploy_both, system)
    began, before = (
        time.monotonic(),
        {action: lines(system, action) for action in ("evict", "start_failed", "start_impossible")},
    )
    async with system.async_client("") as client:
        for number in range(6):
            name = NAMES[number % 2]
            answer = await client.post(
                f"/e/{name}/v1/chat/completions", json=BODY, headers={"authorization": f"Bearer {keys[name]}"}
            )
            assert answer.status_code == 200, answer.text
        switches = lines(system, "evict") - before["evict"]
        assert 1 <= switches <= (time.monotonic() - began) / LEAST_STAY + 1
        header = {"authorization": f"Bearer {keys['left']}", "prefer": "wait=1"}
        hasty = await client.post("/e/left/v1/chat/completions", json=BODY, headers=header)
        if hasty.status_code != 200:  # "right" has just taken the place, and stays
            message = hasty.json()["error"]["message"]
            assert hasty.status_code == 503 and "memory: " in message and "GiB needed" in message
        at_once = [
            client.post(f"/e/{name}/v1/chat/completions", json=BODY, headers={"authorization": f"Bearer {keys[name]}"})
            for name in NAMES * 3
        ]
        assert [answer.status_code for answer in await asyncio.gather(*at_once)] == [200] * 6
    assert all(lines(system, action) == before[action] for action in ("start_failed", "start_impossible"))
    for endpoint in system.status()["endpoints"]:
        (revision,) = endpoint["revisions"]
        assert (revision["failures"], revision["failure"]) == (0, "")


async def test_what_gives_way_finishes_its_answer(system: System) -> None:
    keys = {name: await asyncio.to_thread(system.key, name) for name in NAMES}
    await asyncio.to_thread(
        wait_until,
        lambda: [r for name in NAMES for r in system.replicas(name) if r["state"] == "ready"],
        60,
        "one is ready",
    )
    serving, other = sorted(NAMES, key=lambda name: not any(r["state"] == "ready" for r in system.replicas(name)))
    begun = asyncio.Event()
    async with system.async_client(keys[serving]) as client:
        running_one = asyncio.ensure_future(stream(client, serving, tokens=400, begun=begun))
        await begun.wait()
        answer = await client.post(
            f"/e/{other}/v1/chat/completions", json=BODY, headers={"authorization": f"Bearer {keys[other]}"}
        )
        assert answer.status_code == 200, answer.text
        finished = await running_one
    assert (finished["chunks"] > 0, finished["finish"], finished["done"]) == (True, "length", True)
