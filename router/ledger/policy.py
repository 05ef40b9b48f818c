"""The policy all workers of this machine serve by: which keys live, pushed whole whenever it changes.

Steps 2 and 12. The failure to survive is Postgres being away, even at the start: the last policy is kept in
`paths.policy`, served until Postgres is back, and then loaded anew. Without either there is no policy to give, and none
is given: an empty one would turn every caller away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import structlog
from pydantic import ValidationError

from pilotlight.files import write_atomic
from router.ledger.postgres import Outage, until_done
from router.ledger.wire import KeyRow, Policy

RELOAD_SECONDS = 30.0  # the named fallback, should a notification ever be lost
CLOCK_SECONDS = 1.0  # by how much more the clocks of Postgres and this machine may come to differ before it is worth telling

log = structlog.get_logger()


class LiveKeys(NamedTuple):
    """What Postgres says. `ahead_seconds`: by how much its clock is ahead of ours, for keys expire by its clock."""

    keys: tuple[KeyRow, ...]
    ahead_seconds: float = 0.0


class Policies:
    """The one writer of the policy; `load` reads the keys from Postgres."""

    def __init__(self, *, file: Path, load: Callable[[], Awaitable[LiveKeys]]) -> None:
        self._file, self._load = file, load
        self._changed = asyncio.Condition()
        self._stale = asyncio.Event()
        self._stale.set()
        self.current = self._restore()

    def invalidate(self) -> None:
        """Something in Postgres has changed, or may have while nobody listened."""
        self._stale.set()

    async def newer_than(self, version: int) -> Policy:
        """The current policy, as soon as it is newer than `version`; 0: as soon as there is one."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.current is not None and self.current.version > version)
            assert self.current is not None
            return self.current

    async def settled(self, key_id: str, *, live: bool) -> int:
        """The version of the current policy, as soon as it has the key, or (`live` false) has it no more. Reads Postgres anew."""
        self.invalidate()
        async with self._changed:
            await self._changed.wait_for(lambda: self.current is not None and _has(self.current, key_id) == live)
            assert self.current is not None
            return self.current.version

    async def run(self) -> None:
        outage = Outage("ledger.policy")
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RELOAD_SECONDS):
                    await self._stale.wait()
            self._stale.clear()
            await self._publish(await until_done(outage, self._load))

    async def _publish(self, found: LiveKeys) -> None:
        last = self.current
        if last is not None and last.keys == found.keys and abs(last.ahead_seconds - found.ahead_seconds) < CLOCK_SECONDS:
            return
        version = max(last.version + 1 if last else 1, int(time.time() * 1000))  # rises also when the state folder was lost
        policy = Policy(version=version, keys=found.keys, ahead_seconds=found.ahead_seconds)
        try:
            await asyncio.to_thread(write_atomic, self._file, policy.model_dump_json().encode())
        except OSError as error:  # a revocation must reach the workers all the same
            log.error("the policy cannot be kept on disk", action="ledger.policy", file=str(self._file), reason=str(error))
        async with self._changed:
            self.current = policy
            self._changed.notify_all()
        log.info("policy changed", action="ledger.policy", version=version, keys=len(found.keys))

    def _restore(self) -> Policy | None:
        try:
            return Policy.model_validate_json(self._file.read_bytes(), extra="ignore")
        except FileNotFoundError:
            return None
        except (ValidationError, OSError) as error:
            log.warning(
                "the kept policy cannot be read; waiting for Postgres", action="ledger.policy", file=str(self._file), reason=str(error)
            )
            return None


def _has(policy: Policy, key_id: str) -> bool:
    return any(key.key_id == key_id for key in policy.keys)
