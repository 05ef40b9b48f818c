"""The router's workers end with their parent, whatever state they are in: no worker without a parent keeps the port."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

from pilotlight.ports import free_port
from tests.pipes import fifo, heard

PARENT = """
import asyncio, sys
from pilotlight.settings import load
from router import parent as parents
from router.edge.listeners import Listeners
from router.hold.machine import Memory

async def main():
    config = load(state_dir=sys.argv[1], router={"port": int(sys.argv[2])})
    config.paths.make()
    sys.executable = sys.argv[3]  # what it starts for a worker
    parent = parents._Parent(Listeners.bind(config), Memory.make(1), config)
    await parent.keep(0)

asyncio.run(main())
"""


def test_a_worker_that_is_stopped_ends_with_its_parent_and_the_port_is_free(tmp_path: Path) -> None:
    said, worker = tmp_path / "said", tmp_path / "worker"
    hears = fifo(said)
    worker.write_text(f"#!/bin/sh\necho $$ > {said}\nexec sleep 1000\n")
    worker.chmod(0o700)
    port = free_port()
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "state"), str(port), str(worker)])
    try:
        pid = int(heard(hears))
        held = os.pidfd_open(pid)
        os.kill(pid, signal.SIGSTOP)
    finally:
        parent.kill()
        parent.wait()
    gone = select.poll()
    gone.register(held, select.POLLIN)
    ended = gone.poll(10_000)
    if not ended:
        signal.pidfd_send_signal(held, signal.SIGKILL)
    os.close(held)
    os.close(hears)
    assert ended
    with socket.create_server(("127.0.0.1", port)):
        pass
