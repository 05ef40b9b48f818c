"""What another Pilotlight process sends: lines that are to be frames of a contract, read as `pilotlight/frames.py`
reads them.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from activator.wire import FromActivator, ToActivator
from pilotlight.frames import FrameError, FrameStream
from router.ledger.wire import FromLedger, ToLedger
from runtime.wire import FromAgent, ToAgent

CONTRACTS = (FromActivator, ToActivator, FromLedger, ToLedger, FromAgent, ToAgent)
MOST_FRAMES = 64

SEEDS = (
    b"\x00" + b'{"kind":"alive"}\n',
    b"\x00" + b'{"kind":"table","epoch":1,"sequence":1,"whole":true,"endpoints":[]}\n',
    b"\x01" + b'{"kind":"demand","router_id":"r","table_sequence":1,"requests":{"r1":2}}\n',
    b"\x02" + b'{"kind":"policy","version":1,"keys":[]}\n',
    b"\x03" + b'{"kind":"hello","worker_id":"w","pid":1}\n{"kind":"unknown","x":[1,{}]}\n',
    b"\x04" + b'{"kind":"refused","replica_id":"r","reason":"no"}\n{"kind":"shipped","replica_id":"r","up_to":1e400}\n',
    b"\x05" + b'{"kind":"check_arguments","check_id":"c","engine_args":{"a":"\\ud800"}}\n{"kind":"alive"}\n',
)

_loop = asyncio.new_event_loop()


def target(data: bytes) -> None:
    """The first byte chooses the contract."""
    if data:
        _loop.run_until_complete(_read(data[1:], CONTRACTS[data[0] % len(CONTRACTS)]))


async def _read(data: bytes, contract: Any) -> None:
    reader = asyncio.StreamReader(limit=1 << 16)
    reader.feed_data(data)
    reader.feed_eof()
    stream: FrameStream[Any] = FrameStream(reader, cast(asyncio.StreamWriter, None), contract)
    try:
        for _ in range(MOST_FRAMES):
            if await stream.receive() is None:
                return
    except FrameError:
        return
