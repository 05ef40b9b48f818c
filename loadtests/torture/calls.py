"""What the clients of the torture do: streams and whole answers, one to eight choices, one in five leaves at a random
point.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import httpx

CHOICES = (1, 1, 1, 2, 2, 8)
MOST_TOKENS = 120
LEAVES_PERCENT = 20
AGAIN_SECONDS = 0.2  # after a connection that could not be made, or a 503: somebody is being started
CALL_SECONDS = 400.0


class Call(NamedTuple):
    prompt: str
    choices: int
    tokens: int
    stream: bool
    leaves: float | None  # the part of its answer after which the client goes; None: it stays


@dataclass
class Heard:
    """What the clients were told. `ids`: of answers that began; `refused`: how often, by status and code, before they
    were asked again.
    """

    ids: set[str] = field(default_factory=set)
    complete: int = 0
    left: int = 0
    broken: int = 0  # by whoever was killed
    refused: Counter[str] = field(default_factory=Counter)


def plan(dice: random.Random, number: int) -> list[Call]:
    calls = []
    for _ in range(number):
        leaves = dice.random() if dice.randrange(100) < LEAVES_PERCENT else None
        tokens = dice.randint(4, MOST_TOKENS)
        calls.append(Call("x" * dice.randint(1, 50), dice.choice(CHOICES), tokens, dice.random() < 0.5, leaves))
    return calls


async def make(client: httpx.AsyncClient, path: str, call: Call, step_seconds: float, heard: Heard) -> None:
    """One call, made again where no connection could be had, or it was refused for the moment."""
    body = {"prompt": call.prompt, "n": call.choices, "max_tokens": call.tokens, "stream": call.stream}
    while True:
        try:
            if await _once(client, path, body, call, step_seconds, heard):
                return
        except httpx.ConnectError:
            pass
        except (httpx.HTTPError, TimeoutError):
            heard.broken += 1
            return
        await asyncio.sleep(AGAIN_SECONDS)


async def _once(
    client: httpx.AsyncClient, path: str, body: dict[str, object], call: Call, step_seconds: float, heard: Heard
) -> bool:
    """False where it was refused."""
    patience = None if call.stream or call.leaves is None else call.leaves * call.tokens * step_seconds
    try:
        async with asyncio.timeout(patience), client.stream("POST", path, json=body) as answer:
            if answer.status_code != 200:
                error = json.loads(await answer.aread())["error"]
                heard.refused[f"{answer.status_code} {error['code']}"] += 1
                return False
            heard.ids.add(answer.headers["x-request-id"])
            most = None if call.leaves is None else int(call.leaves * call.tokens * call.choices)
            if await _read(answer, most if call.stream else None):
                heard.left += 1
            else:
                heard.complete += 1
    except TimeoutError:
        if patience is None:
            raise
        heard.left += 1
    return True


async def _read(answer: httpx.Response, most: int | None) -> bool:
    """To its end, or until `most` events have come: then true."""
    events = 0
    async for line in answer.aiter_lines():
        events += line.startswith("data: {")
        if most is not None and events > most:
            return True
        if line.startswith('data: {"error"'):
            raise httpx.RemoteProtocolError(line)
    return False
