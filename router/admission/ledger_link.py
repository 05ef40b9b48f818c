"""The connection to this machine's ledger: keys come down, news of the spool goes up. Steps 2 and 12.

The failure to survive is the ledger's absence, at the start too. The policy it last wrote to `paths.policy` is read
first, and serves until a live one comes. After that the ledger's word alone counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from pilotlight.frames import FrameError, FrameStream, connect
from router import reconnect
from router.admission.auth import Keys
from router.ledger.wire import Alive, Applied, FromLedger, Policy, PolicyChange, PolicyPart, Spooled, WorkerHello
from router.spool.spool import Spool

HEARTBEAT_SECONDS = 1.0

log = structlog.get_logger()


class LedgerLink:
    def __init__(self, *, address: str, file: Path, hello: WorkerHello, keys: Keys, spool: Spool) -> None:
        self._address = address
        self._file = file
        self._hello = hello
        self._keys = keys
        self._spool = spool

    async def run(self) -> None:
        self._restore()
        await reconnect.for_ever("ledger", self._converse)

    async def _converse(self, heard: Callable[[], None]) -> None:
        async with asyncio.timeout(reconnect.CONNECT_SECONDS):  # not wait_for: Python 3.11's may lose a cancellation
            stream: FrameStream[Any] = await connect(self._address, FromLedger)
        beating = asyncio.create_task(_beat(stream), name="ledger heartbeat")
        try:
            stream.send(self._hello)
            self._spool.tell(lambda file, size: stream.send(Spooled(file=file, bytes=size)))
            heard()
            while True:
                async with asyncio.timeout(reconnect.SILENT_SECONDS):
                    frame = await stream.receive()
                if frame is None:
                    return
                if isinstance(frame, Policy):
                    self._keys.replace(frame)
                    stream.send(Applied(version=frame.version))
                elif isinstance(frame, PolicyPart):
                    if self._keys.add(frame):
                        stream.send(Applied(version=frame.version))
                    await asyncio.sleep(0)  # a part at a time: what runs here goes on in between
                elif isinstance(frame, PolicyChange):
                    if not self._keys.change(frame):
                        raise FrameError(f"a change of policy {frame.base} came to policy {self._keys.version}")
                    stream.send(Applied(version=frame.version))
        finally:
            beating.cancel()
            self._spool.tell(None)
            stream.close()

    def _restore(self) -> None:
        try:
            self._keys.replace(Policy.model_validate_json(self._file.read_bytes(), extra="ignore"))
        except FileNotFoundError:
            log.info("no policy is kept here; waiting for the ledger", action="policy", file=str(self._file))
        except (OSError, ValueError) as error:  # pydantic's, or a hash that is none
            log.warning(
                "the kept policy cannot be read; waiting for the ledger",
                action="policy",
                file=str(self._file),
                reason=str(error),
            )


async def _beat(stream: FrameStream[Any]) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        stream.send(Alive())
