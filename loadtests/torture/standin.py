"""A standby without an engine: it forks replicas whose gate and journal are the real ones, and whose engine is
`engine.py`.

python -m loadtests.torture.standin CONTROL_FD MODEL      (as the agent starts it; PILOTLIGHT_ORACLE names a folder)
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

import uvicorn

from loadtests.torture.engine import App, Engine
from loadtests.torture.oracle import Log
from runtime.control import (
    Ask,
    Beat,
    Born,
    Control,
    Depth,
    DrainNow,
    Fork,
    Journaled,
    Rehearsed,
    Serving,
    ToReplica,
    ToStandby,
)
from runtime.reap import Identity
from runtime.serving.gate import Gate
from runtime.serving.phases import Phases
from runtime.serving.pulse import Beats, Pulse
from runtime.serving.usage import Journal


def main(control_fd: int) -> int:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever dies is the agent's to notice
    control = Control(socket.socket(fileno=control_fd), ToStandby)
    control.send(
        Rehearsed(engine="vllm", version="stand-in", device="cpu", seconds=0.0, private_bytes=1 << 20, threads=1)
    )
    while (got := control.receive()) is not None:
        if isinstance(got[0], Ask):
            control.offer(Beat())
            continue
        order, (replica_fd,) = got
        if os.fork() == 0:
            control.close()
            replica(order, Control(socket.socket(fileno=replica_fd), ToReplica))
        os.close(replica_fd)
    return 0


def replica(fork: Fork, control: Control) -> NoReturn:
    status = 1
    try:
        os.setsid()
        identity = Identity.of(os.getpid())
        assert identity is not None
        control.send(Born(pid=identity.pid, start_time=identity.start_time))
        phases = Phases(control)
        for name in ("spawn", "load", "init"):
            phases.add(name, time.monotonic())
        asyncio.run(serve(fork, control))
        status = 0
    finally:
        os._exit(status)


async def serve(fork: Fork, control: Control) -> None:
    later = asyncio.get_running_loop().call_later
    journal = Journal(fork.journal, fork.replica_id, grown=lambda: tell(control, Journaled()), later=later)
    pulse = Pulse()
    engine = Engine(journal, Log(Path(os.environ["PILOTLIGHT_ORACLE"]), fork.replica_id), stepped=pulse.stepped)
    beats = Beats(control, pulse)
    beats.begin()
    beats.follow(asyncio.get_running_loop(), in_work=lambda: engine.in_work, counts=journal.running)
    gate = Gate(
        App(engine),
        slots=fork.slots,
        journal=journal,
        on_depth=lambda depth: tell(control, Depth(in_flight=depth)),
        on_left=lambda sequences: None,  # the app aborts what it is left with
    )
    path = f"{fork.folder}/s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        server = uvicorn.Server(
            uvicorn.Config(gate, http="httptools", ws="none", lifespan="off", access_log=False, log_config=None)
        )
        control.sock.setblocking(False)

        def cut() -> None:
            journal.end("abort")
            os.killpg(0, signal.SIGKILL)

        def heard() -> None:
            got = control.receive()
            if got is None:
                cut()
            elif isinstance(got[0], DrainNow):
                gate.drain(lambda: setattr(server, "should_exit", True))
                if got[0].seconds is not None:
                    later(got[0].seconds, cut)

        asyncio.get_running_loop().add_reader(control.sock, heard)
        stepping = asyncio.ensure_future(engine.run())
        serving = asyncio.ensure_future(server.serve([listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0)
        control.send(Serving(address=f"unix:{path}"))
        await serving
        stepping.cancel()


def tell(control: Control, frame: Depth | Journaled) -> None:
    try:
        control.send(frame)
    except BlockingIOError:
        pass  # the agent reads journal and depth once a second in any case


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
