"""What the clients of the torture do: streams and whole answers, one to eight choices, one in five leaves at a random point."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import NamedTuple

import httpx

CHOICES = (1, 1, 1, 2, 2, 8)
MOST_TOKENS = 120
LEAVES_PERCENT = 20
AGAIN_SECONDS = 0.2  # after a connection that could not be made: a router is being started
CALL_SECONDS = 400.0


class Call(NamedTuple):
    prompt: str
    choices: int
    tokens: int
    stream: bool
    leaves: float | None  # the part of its answer after which the client goes; None: it stays


@dataclass
class Heard:
    """What the clients were told."""

    ids: set[str] = field(default_factory=set)
    whole: int = 0
    left: int = 0
    broken: int = 0  # by whoever was killed
    refused: dict[int, int] = field(default_factory=dict)  # by status


def plan(dice: random.Random, number: int) -> list[Call]:
    calls = []
    for _ in range(number):
        leaves = dice.random() if dice.randrange(100) < LEAVES_PERCENT else None
        tokens = dice.randint(4, MOST_TOKENS)
        calls.append(Call("x" * dice.randint(1, 50), dice.choice(CHOICES), tokens, dice.random() < 0.5, leaves))
    return calls


async def make(client: httpx.AsyncClient, path: str, call: Call, step_seconds: float, heard: Heard) -> None:
    """One call, made again only where no connection could be had."""
    body = {"prompt": call.prompt, "n": call.choices, "max_tokens": call.tokens, "stream": call.stream}
    while True:
        try:
            await _once(client, path, body, call, step_seconds, heard)
        except httpx.ConnectError:
            await asyncio.sleep(AGAIN_SECONDS)
            continue
        except (httpx.HTTPError, TimeoutError):
            heard.broken += 1
        return


async def _once(client: httpx.AsyncClient, path: str, body: dict[str, object], call: Call, step_seconds: float, heard: Heard) -> None:
    patience = None if call.stream or call.leaves is None else call.leaves * call.tokens * step_seconds
    try:
        async with asyncio.timeout(patience), client.stream("POST", path, json=body) as answer:
            heard.ids.add(answer.headers["x-request-id"])
            if answer.status_code != 200:
                heard.refused[answer.status_code] = heard.refused.get(answer.status_code, 0) + 1
                return
            most = None if call.leaves is None else int(call.leaves * call.tokens * call.choices)
            if await _read(answer, most if call.stream else None):
                heard.left += 1
            else:
                heard.whole += 1
    except TimeoutError:
        if patience is None:
            raise
        heard.left += 1


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
