"""Asks every node whether its usage journals are in Postgres up to now, for the ledger. Step 12.

`ShipJournals` goes to every connected agent. Each answers behind the batches it speaks of, and its answer takes their
way through the writer's queue. What must survive is an agent that hangs, or Postgres being away: after `SHIP_SECONDS`
the answer is given without it, and the ledger asks again. A link that breaks takes its answer with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

from activator.wire import Done
from pilotlight.frames import Frame
from runtime.wire import Ship, Shipped

SHIP_SECONDS = 8.0  # an agent takes up to four, the writer's queue what it takes


@dataclass(slots=True)
class _Asked:
    """One question, and what was answered so far."""

    missing: set[int]  # connections that have not answered
    replicas: set[str] = field(default_factory=set)
    in_work: set[str] = field(default_factory=set)
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Journals:
    """The questions that are not answered yet. `send`: a frame to an agent, by its link."""

    def __init__(self, send: Callable[[int, Frame], None]) -> None:
        self._send = send
        self._tokens = count(1)
        self._asked: dict[int, _Asked] = {}

    async def ask(self, agents: Iterable[int]) -> Done:
        """Ask these agents. `result`: `replicas` whose journals are in Postgres up to the question, and the requests
        still `in_work` there.
        """
        token, asked = next(self._tokens), _Asked(set(agents))
        self._asked[token] = asked
        try:
            for connection in asked.missing:
                self._send(connection, Ship(token=token))
            if asked.missing:
                async with asyncio.timeout(SHIP_SECONDS):
                    await asked.done.wait()
        except TimeoutError:
            pass  # what has been said counts; the rest is asked for again
        finally:
            del self._asked[token]
        return Done(ok=True, result={"replicas": sorted(asked.replicas), "in_work": sorted(asked.in_work)})

    def shipped(self, connection: int, word: Shipped) -> None:
        """An agent's answer, and all it speaks of, is in Postgres."""
        asked = self._asked.get(word.token)
        if asked is None or connection not in asked.missing:
            return
        asked.missing.discard(connection)
        asked.replicas.update(word.replicas)
        asked.in_work.update(word.in_work)
        if not asked.missing:
            asked.done.set()
