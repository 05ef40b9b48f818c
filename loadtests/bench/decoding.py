"""How fast tokens come, of any server of the OpenAI API: one stream token by token, and several streams together."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time

import httpx

STREAMS, TOKENS = 4, 64


class Speaker:
    """One server, and what it calls the model. `client`: with base URL, certificate and key."""

    def __init__(self, client: httpx.AsyncClient, path: str, model: str) -> None:
        self._client = client
        self._path = path
        self._model = model

    async def moments(self, prompt: str, tokens: int) -> list[float]:
        """When each chunk of a greedy answer of that many tokens came, in seconds. Raises HTTPError."""
        body = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
        async with self._client.stream("POST", self._path, json=body) as answer:
            answer.raise_for_status()
            return [
                time.monotonic()
                async for line in answer.aiter_lines()
                if line.startswith("data: {") and '"text":"' in line
            ]

    async def together(self) -> float:
        """Tokens a second of STREAMS answers of TOKENS tokens at once."""
        begin = time.monotonic()
        await asyncio.gather(*(self.moments(f"{stream} is", TOKENS) for stream in range(STREAMS)))
        return STREAMS * TOKENS / (time.monotonic() - begin)


def pace(moments: list[float]) -> float:
    """Tokens a second, by the median time between two chunks."""
    return 1 / statistics.median(after - before for before, after in itertools.pairwise(moments))
