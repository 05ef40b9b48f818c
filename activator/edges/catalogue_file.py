"""The catalogue as a file, for an activator that starts while Postgres is away. Step 6.

Postgres is the authority. After each change the leader writes the file anew, under another name until it is synced. No
command is taken while Postgres is away, so the file is at most one command behind. That is one which a leader committed
before it died, and did not write. `differences` makes it good when Postgres is back. Three failures must be survived:

    kill -9 in the middle of a write    the old file stands
    a full disk                         the write is tried again until there is room
    a file that cannot be read          the activator waits for Postgres, as on a new machine
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import structlog
from pydantic import TypeAdapter, ValidationError

from activator.catalogue import Endpoint
from pilotlight.files import write_atomic

log = structlog.get_logger()

RETRY_SECONDS = 1.0
_endpoints: TypeAdapter[list[Endpoint]] = TypeAdapter(list[Endpoint])


class CatalogueFile:
    """The file, and who keeps it: `put` each endpoint as it changes, `drop` what is forgotten, `run` writes."""

    def __init__(self, file: Path, endpoints: Iterable[Endpoint]) -> None:
        self._file = file
        self._endpoints = {endpoint.endpoint_id: endpoint for endpoint in endpoints}
        self._changed = asyncio.Event()
        self._changed.set()

    def put(self, endpoint: Endpoint) -> None:
        self._endpoints[endpoint.endpoint_id] = endpoint
        self._changed.set()

    def drop(self, endpoint_id: str) -> None:
        """It is removed, and nothing of it runs any more."""
        if self._endpoints.pop(endpoint_id, None) is not None:
            self._changed.set()

    async def run(self) -> NoReturn:
        """Write what has changed, for ever."""
        failing = False
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await asyncio.to_thread(write, self._file, tuple(self._endpoints.values()))
                failing = False
            except OSError as error:
                if not failing:
                    log.error(
                        "the catalogue cannot be kept on disk; trying on", action="catalogue_unkept", reason=str(error)
                    )
                failing = True
                self._changed.set()
                await asyncio.sleep(RETRY_SECONDS)


def write(file: Path, endpoints: Iterable[Endpoint]) -> None:
    """Raises OSError; the file then is as it was."""
    write_atomic(file, _endpoints.dump_json(list(endpoints)))


def read(file: Path) -> list[Endpoint] | None:
    """What the last leader kept here; None where nothing is, or nothing that can be read. Fields of a later release are
    passed over.
    """
    try:
        return _endpoints.validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.error(
            "the kept catalogue cannot be read; waiting for Postgres",
            action="catalogue_unread",
            file=str(file),
            reason=str(error),
        )
        return None


def differences(served: Iterable[Endpoint], stored: Iterable[Endpoint]) -> list[Endpoint]:
    """Endpoints as Postgres has them that are served otherwise; those it has no more, as removed. Pure."""
    known = {endpoint.endpoint_id: endpoint for endpoint in served}
    there = {endpoint.endpoint_id: endpoint for endpoint in stored}
    gone = [
        replace(endpoint, removed=True, route=())
        for id_, endpoint in known.items()
        if id_ not in there and not endpoint.removed
    ]
    return [endpoint for id_, endpoint in there.items() if known.get(id_) != endpoint] + gone
