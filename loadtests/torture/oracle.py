"""The independent count: every token a stand-in engine made, written down when it was made, apart from all that is
billed by.

One file a replica, `<replica_id>.log`, a line an engine step and request: monotonic seconds, request id, prompt tokens,
output tokens. A line is one `write` before anybody is given the tokens, so kill -9 of the replica loses none of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Made(NamedTuple):
    """What an engine made for a request, tokens."""

    input: int
    output: int


@dataclass
class Work:
    """One request at one replica."""

    replica_id: str
    steps: list[tuple[float, int, int]] = field(default_factory=list)  # monotonic seconds, input, output

    def until(self, moment: float) -> Made:
        """What had been made then."""
        return Made(
            sum(step[1] for step in self.steps if step[0] <= moment),
            sum(step[2] for step in self.steps if step[0] <= moment),
        )

    @property
    def total(self) -> Made:
        return self.until(float("inf"))


class Log:
    """The writing side, in the replica."""

    def __init__(self, folder: Path, replica_id: str) -> None:
        self._fd = os.open(folder / f"{replica_id}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def step(self, at: float, made: Iterable[tuple[str, int, int]]) -> None:
        """One engine step: (request id, prompt tokens, output tokens) of each request in it."""
        os.write(
            self._fd, "".join(f"{at:.6f} {request} {prompt} {output}\n" for request, prompt, output in made).encode()
        )


def read(folder: Path) -> dict[str, list[Work]]:
    """All that was made, by request. A request that several replicas had has several."""
    found: dict[str, list[Work]] = {}
    for file in folder.glob("*.log"):
        works: dict[str, Work] = {}
        for line in file.read_text().splitlines():
            at, request, prompt, output = line.split()
            works.setdefault(request, Work(file.stem)).steps.append((float(at), int(prompt), int(output)))
        for request, work in works.items():
            found.setdefault(request, []).append(work)
    return found
