"""How `pilotlight up` asks the installation it has started: over HTTPS, without a client library.

`up` lives as long as the machine and imports little. It asks whether the router answers, and then when wakes are fast.
The first standby is rehearsed 15 to 30 s after the router is ready, and a call before that waits for it. The failure to
survive is an answer that never comes: each question has its own deadline.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

from pilotlight import keys
from pilotlight.cli.reaching import HERE
from pilotlight.parsed import json_of
from pilotlight.settings import Settings

LOOK_SECONDS = 0.5  # between two looks at the standbys: the admin API does not push
ANSWER_SECONDS = 5.0
MOST_BYTES = 64 << 20
SLOW = "the engine is being rehearsed, once; a wake waits until a line here says that it is over"
FAST = "the engine is rehearsed: wakes are fast from now on"


class Asker:
    """Asks the router, each time over a connection of its own."""

    def __init__(self, settings: Settings, host: str) -> None:
        """`host`: where this machine reaches the public port."""
        self._settings, self._host = settings, host
        self._context = ssl.create_default_context(cafile=str(settings.paths.ca_cert))

    async def says_yes(self, path: str) -> bool:
        """Whether a GET of it, with the admin key, is answered 200."""
        return await self._get(path) is not None

    async def status(self) -> dict[str, Any] | None:
        """Of the admin API; None where nobody says it now."""
        body = await self._get("/api/v1/status")
        try:
            found = json_of(body or b"null")
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    async def _connect(self, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        router = self._settings.router
        if router.admin == "off" and path.startswith("/api/"):
            return await asyncio.open_unix_connection(self._settings.paths.run / "admin.sock")
        return await asyncio.open_connection(self._host, router.port, ssl=self._context, server_hostname=HERE)

    async def _get(self, path: str) -> bytes | None:
        key = keys.ensure_admin_key(self._settings.paths)
        asked = f"GET {path} HTTP/1.1\r\nhost: pilotlight\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await self._connect(path)
                try:
                    writer.write(asked.encode())
                    head_and_body = await _all_of(reader)
                finally:
                    writer.transport.abort()
        except OSError:
            return None
        said, _, body = head_and_body.partition(b"\r\n\r\n")
        return body if said.split()[1:2] == [b"200"] else None


async def _all_of(reader: asyncio.StreamReader) -> bytes:
    """Until the other side closes, as it was asked to."""
    data = b""
    while len(data) < MOST_BYTES and (piece := await reader.read(1 << 16)):
        data += piece
    return data


async def tell_when_fast(asker: Asker, settings: Settings, say: Callable[[str], None]) -> None:
    """Says that wakes are slow, and when they are fast; why not, where no standby is rehearsed in its time. Nothing
    where none is kept.
    """
    if not settings.runtime.standbys:
        return
    begun = asyncio.get_running_loop().time()
    said_slow = False
    while asyncio.get_running_loop().time() < begun + settings.runtime.rehearsal_seconds + 60.0:
        nodes = (await asker.status() or {}).get("nodes", [])
        if any(node.get("standbys_ready") for node in nodes):
            if said_slow:
                say(FAST)
            return
        if not said_slow:
            say(SLOW)
            said_slow = True
        await asyncio.sleep(LOOK_SECONDS)
    say(
        "no standby is rehearsed: each wake loads the engine anew; `pilotlight ps` and `pilotlight logs standby` say why"
    )
