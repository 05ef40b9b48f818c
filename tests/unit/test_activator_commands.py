"""A command that Postgres does not take says what is known of it, holds up nobody, and leaves nothing that grows."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import Any

from activator.edges import server
from activator.edges.commands import UNSTORED, Commands
from activator.edges.journal_watermarks import Journals
from activator.edges.real_effects import Links
from activator.events import Event
from activator.wire import Deploy, Done, FromActivator
from pilotlight.frames import connect


class Away:
    """A pool of a Postgres that does not answer."""

    @asynccontextmanager
    async def acquire(self) -> Any:
        raise OSError("nobody listens")
        yield


def commands(inbox: asyncio.Queue[Event]) -> Commands:
    return Commands(pool=Away(), inbox=inbox, epoch=lambda: 1)


async def test_what_was_never_begun_is_not_called_unknown() -> None:
    asked = commands(asyncio.Queue())
    for _ in range(1000):
        done = await asked.execute(Deploy(org_id="default", name="demo", digest="sha256:" + "0" * 64))
    assert done == Done(ok=False, message=UNSTORED, again=True)
    assert not asked._unsure, "nothing was begun, so nothing is to be read again"


async def test_a_first_frame_that_nobody_knows_is_not_waited_behind(monkeypatch: Any, tmp_path: Any) -> None:
    monkeypatch.setattr(server, "HELLO_SECONDS", 0.05)
    address = f"unix:{tmp_path}/a.sock"
    inbox: asyncio.Queue[Event] = asyncio.Queue()
    journals = Journals(lambda connection, frame: None)
    served = server.Server(inbox=inbox, links=Links(), commands=commands(inbox), journals=journals, agents=list)
    listening = await served.serve(address)
    reader, writer = await asyncio.open_unix_connection(address[5:])
    writer.write(b'{"kind":"of_a_later_release"}\n')
    assert await reader.read() == b"", "it is closed, and the caller can say so"
    writer.close()
    peer = await connect(address, FromActivator)
    peer.send(Deploy(org_id="default", name="demo", digest="sha256:" + "0" * 64))
    answer = await peer.receive()
    assert isinstance(answer, Done) and answer.again
    peer.close()
    listening.close()
