"""Keeps the policy on disk (`paths.policy`), for workers and ledgers that start without Postgres. Steps 2 and 12.

A short one is written before it is told. A long one is written soon after, in slices, and at most so often that it
costs a tenth of one core. Two failures to survive. The disk is full: a revocation must reach the workers all the same.
A kill -9 comes amid a write: the file is complete, or the one before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import structlog

from pilotlight.files import write_atomic
from router.ledger.wire import KeyRow, Policy

SHORT = 500  # keys; so many are written before anybody hears of a change
SLICE = 500  # keys that are written down without a pause
PAUSES = 9.0  # pause after a write, of the time it took

log = structlog.get_logger()


class Kept(Protocol):
    """What there is to keep."""

    keys: dict[str, KeyRow]
    version: int
    ahead_seconds: float


class Keeping:
    def __init__(self, file: Path) -> None:
        self.file = file
        self.due = asyncio.Event()  # a long policy has changed

    def read(self) -> Policy:
        """Raises FileNotFoundError, OSError, ValueError."""
        return read(self.file)

    async def run(self, policy: Kept) -> None:
        while True:
            await self.due.wait()
            self.due.clear()
            began = time.monotonic()
            await self.write(policy.keys, policy.version, policy.ahead_seconds)
            await asyncio.sleep(PAUSES * (time.monotonic() - began))

    async def write(self, keys: Mapping[str, KeyRow], version: int, ahead_seconds: float) -> None:
        """Logs where it cannot."""
        head = f'{{"kind":"policy","version":{version},"ahead_seconds":{ahead_seconds},"keys":['
        rows, pieces = list(keys.values()), list[str]()
        for first in range(0, len(rows), SLICE):
            pieces.append(",".join([row.model_dump_json() for row in rows[first : first + SLICE]]))
            if len(rows) > SLICE:
                await asyncio.sleep(0)
        try:
            await asyncio.to_thread(lambda: write_atomic(self.file, f"{head}{','.join(pieces)}]}}".encode()))
        except OSError as error:
            log.error(
                "the policy cannot be kept on disk", action="ledger.policy", file=str(self.file), reason=str(error)
            )


def read(file: Path) -> Policy:
    """A kept policy, whose keys' hashes are hashes. Raises FileNotFoundError, OSError, ValueError."""
    policy = Policy.model_validate_json(file.read_bytes(), extra="ignore")
    for key in policy.keys:
        bytes.fromhex(key.hash)
    return policy
