"""The policy all workers of this machine serve by: which keys are valid, told in full to who comes, then as it changes.

Steps 2 and 12. Nothing here takes longer with many keys than with few. A notification names what has changed, and only
that is read and told. What concerns all keys goes in slices: reading them anew, writing `paths.policy`, the policy for
a new worker. The failure to survive is Postgres being away, even at the start. The last policy is kept in
`paths.policy`, served until Postgres is back, and then loaded anew. Without either there is no policy to give, and none
is given: an empty one would turn every caller away.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog

from router.ledger.keeping import SHORT, Keeping
from router.ledger.postgres import Outage, until_done
from router.ledger.wire import KeyRow, Policy, PolicyChange

RELOAD_SECONDS = 30.0  # the named fallback, should a notification ever be lost
CLOCK_SECONDS = (
    1.0  # by how much more the clocks of Postgres and this machine may come to differ before it is worth telling
)
MOST_NAMED = 500  # changes that are read one by one; with more, everything is read anew
CHANGES_KEPT = 256  # a worker that is further behind gets everything anew
SLICE = 500  # keys that are looked at without a pause: about a millisecond
PRICE = "price_"  # what ids of prices begin with: they are told on the same channel

log = structlog.get_logger()


class LiveKeys(NamedTuple):
    """What Postgres says. `ahead_seconds`: by how much its clock is ahead of ours, for keys expire by its clock."""

    keys: tuple[KeyRow, ...]
    ahead_seconds: float = 0.0


class Policies:
    """The one writer of the policy. `load` reads all live keys from Postgres, `find` those of some ids, of keys or
    endpoints, and `mark` what all live keys add up to: equal while none has changed.
    """

    def __init__(
        self,
        *,
        file: Path,
        load: Callable[[], Awaitable[LiveKeys]],
        find: Callable[[Sequence[str]], Awaitable[LiveKeys]] | None = None,
        mark: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        self._load = load
        self._find = find
        self._mark = mark
        self._keeping = Keeping(file)
        self._changed = asyncio.Condition()
        self._stale = asyncio.Event()
        self._stale.set()
        self._all, self._named = True, set[str]()  # what may have changed
        self._marked = ""  # of what was read last
        self.keys: dict[str, KeyRow] = {}
        self.version, self.ahead_seconds = 0, 0.0
        self._changes: deque[PolicyChange] = deque(maxlen=CHANGES_KEPT)
        self._restore()

    @property
    def current(self) -> Policy | None:
        """All of it in one frame."""
        if not self.version:
            return None
        return Policy.model_construct(
            version=self.version, keys=tuple(self.keys.values()), ahead_seconds=self.ahead_seconds
        )

    def invalidate(self, what: str = "") -> None:
        """The key, or the keys of the endpoint, of this id have changed in Postgres; "": anything may have, while
        nobody listened.
        """
        if what.startswith(PRICE):
            return
        if what and self._find:
            self._named.add(what)
        else:
            self._all = True
        self._stale.set()

    async def newer_than(self, version: int) -> Policy:
        """The current policy, as soon as it is newer than `version`; 0: as soon as there is one."""
        await self.changed_since(version)
        current = self.current
        assert current is not None
        return current

    async def changed_since(self, version: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.version > version)

    def changes(self, version: int) -> list[PolicyChange] | None:
        """What leads from `version` to the current policy; None where that is not known any more."""
        if version == self.version:
            return []
        after = [change for change in self._changes if change.version > version]
        return after if after and after[0].base == version else None

    async def settled(self, key_id: str, *, live: bool) -> int:
        """The version of the current policy, as soon as it has the key, or (`live` false) has it no more. Reads
        Postgres anew.
        """
        self.invalidate(key_id)
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self.version) and (key_id in self.keys) == live)
            return self.version

    async def run(self) -> None:
        outage = Outage("ledger.policy")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keeping.run(self), name="keep policy")
            while True:
                lost = False
                try:
                    async with asyncio.timeout(RELOAD_SECONDS):
                        await self._stale.wait()
                except TimeoutError:
                    lost = True
                self._stale.clear()
                await until_done(outage, lambda lost=lost: self._read(lost))  # type: ignore[misc]

    async def _read(self, lost: bool) -> None:
        """Read what may have changed. Raises one of postgres.AWAY; then it is still to be read.

        1. Some keys by name: those only.
        2. Nothing is known to have changed, a notification may have been lost: all, unless they add up to the same.
        3. All.
        """
        everything = self._all or not self.version or len(self._named) > MOST_NAMED
        if self._named and self._find and not everything:  # 1
            named = tuple(self._named)
            self._named.clear()
            self._marked = ""
            try:
                found = await self._find(named)
            except BaseException:
                self._named.update(named)
                raise
            await self._add_some(named, found)
            return
        if not (everything or lost):
            return
        mark = await self._mark() if self._mark else ""
        if mark and mark == self._marked and not everything:  # 2
            return
        self._all = False
        self._named.clear()
        try:
            found = await self._load()  # 3
        except BaseException:
            self._all = True
            raise
        self._marked = mark
        await self._add_all(found)

    async def _add_some(self, named: Iterable[str], found: LiveKeys) -> None:
        asked, now = set(named), {key.key_id: key for key in found.keys}
        known = [key_id for key_id in asked if key_id in self.keys]
        if endpoints := {name for name in asked if name not in self.keys and not name.startswith("key_")}:
            known += [key.key_id for key in self.keys.values() if key.endpoint_id in endpoints]
        gone = [key_id for key_id in known if key_id not in now]
        await self._publish(
            [key for key in now.values() if self.keys.get(key.key_id) != key], gone, found.ahead_seconds
        )

    async def _add_all(self, found: LiveKeys) -> None:
        put, live = list[KeyRow](), set[str]()
        for first in range(0, len(found.keys), SLICE):
            for key in found.keys[first : first + SLICE]:
                live.add(key.key_id)
                if self.keys.get(key.key_id) != key:
                    put.append(key)
            await asyncio.sleep(0)
        await self._publish(put, [key_id for key_id in self.keys if key_id not in live], found.ahead_seconds)

    async def _publish(self, put: list[KeyRow], gone: list[str], ahead_seconds: float) -> None:
        clock_is_new = abs(self.ahead_seconds - ahead_seconds) >= CLOCK_SECONDS
        if self.version and not (put or gone or clock_is_new):
            return
        short = len(self.keys) + len(put) <= SHORT
        keys = dict(self.keys) if short else self.keys
        hashes = tuple(keys.pop(key_id).hash for key_id in gone)
        keys.update((key.key_id, key) for key in put)
        version = max(self.version + 1, int(time.time() * 1000))  # rises also when the state folder was lost
        anew = clock_is_new or not self.version or len(put) + len(gone) > MOST_NAMED
        ahead = ahead_seconds if anew else self.ahead_seconds
        if short:  # on disk before anybody hears of it
            await self._keeping.write(keys, version, ahead)
        else:
            self._keeping.due.set()
        base = self.version
        self.version = version
        self.keys = keys
        self.ahead_seconds = ahead
        if anew:
            self._changes.clear()  # every worker gets everything: when its keys end is reckoned by the clock
        else:
            self._changes.append(PolicyChange(version=self.version, base=base, put=tuple(put), gone=hashes))
        async with self._changed:
            self._changed.notify_all()
        log.info(
            "policy changed",
            action="ledger.policy",
            version=self.version,
            keys=len(self.keys),
            put=len(put),
            gone=len(gone),
        )

    def _restore(self) -> None:
        try:
            kept = self._keeping.read()
        except FileNotFoundError:
            return
        except (ValueError, OSError) as error:
            log.warning(
                "the kept policy cannot be read; waiting for Postgres",
                action="ledger.policy",
                file=str(self._keeping.file),
                reason=str(error),
            )
            return
        self.keys = {key.key_id: key for key in kept.keys}
        self.version, self.ahead_seconds = kept.version, kept.ahead_seconds
