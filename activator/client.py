"""The client of the activator, for router and admin. `wire.py` has the frames."""

from __future__ import annotations

from activator.wire import Deploy, Done, FromActivator, Remove, Rollback, RouterHello, ShipJournals, Status, Wake
from pilotlight.frames import FrameStream, connect


class ActivatorError(Exception):
    """The activator refused a command; the text says what to do."""


class ActivatorAway(ActivatorError):
    """Nobody has refused it: the same command may succeed in a moment."""


async def subscribe(address: str, hello: RouterHello) -> FrameStream[FromActivator]:
    """Connect as a router; the first frame received is a full table. Raises OSError when nobody listens."""
    stream = await connect(address, FromActivator)
    stream.send(hello)
    return stream


async def command(address: str, frame: Deploy | Rollback | Remove | Status | Wake | ShipJournals) -> Done:
    """Send one command and wait for its outcome. Raises OSError, ActivatorError."""
    stream = await connect(address, FromActivator)
    try:
        stream.send(frame)
        answer = await stream.receive()
    finally:
        stream.close()
    if not isinstance(answer, Done):
        raise ActivatorAway("the activator closed the connection before it answered; try again")
    if not answer.ok:
        raise (ActivatorAway if answer.again else ActivatorError)(answer.message)
    return answer
