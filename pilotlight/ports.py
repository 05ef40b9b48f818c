"""Ports for installations that stand beside others: the demo, benchmarks and tests. Before step 1.

The failure to survive: a port that was free when we looked, and is another's when the router binds it. A second program
of ours may have looked at the same moment. Or a connection to elsewhere has it, for which the kernel picks a port of
its own range. So the ports given out here lie outside that range where it leaves room. Each is claimed for the life of
this process by a name in the kernel's abstract sockets, which goes with the process however it ends.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

FIRST, LAST = 10_000, 65_535
KERNELS = Path("/proc/sys/net/ipv4/ip_local_port_range")
TRIES = 1000

_claims: list[socket.socket] = []  # open until this process ends


def free_port(count: int = 1) -> int:
    """The first of so many TCP ports in a row: nobody listens on them, the kernel gives them to no connection, and no
    other process gets them from here. A router's workers serve /metrics on as many in a row as they are.

    Raises OSError when none was found.
    """
    return claim(random.Random().sample(candidates(KERNELS.read_text()), TRIES), count)


def candidates(kernels: str, *, least: int = 2 * TRIES) -> list[int]:
    """The ports outside the kernel's range, "first last"; all of ours, where it leaves too few. Pure."""
    low, high = (int(word) for word in kernels.split())
    outside = [port for port in range(FIRST, LAST + 1) if not low <= port <= high]
    return outside if len(outside) >= least else list(range(FIRST, LAST + 1))


def claim(ports: list[int], count: int = 1) -> int:
    """The first of these ports that could be claimed and bound, with those that follow it. Raises OSError where none
    could.
    """
    for port in ports:
        if (names := _claimed(range(port, port + count))) is not None:
            _claims.extend(names)
            return port
    raise OSError(f"no free port among {len(ports)} from {FIRST} to {LAST}: too many programs listen here")


def _claimed(ports: range) -> list[socket.socket] | None:
    """The names of all these ports; None, and none of them kept, where another process has one."""
    names: list[socket.socket] = []
    try:
        for port in ports:
            names.append(socket.socket(socket.AF_UNIX))
            names[-1].bind(f"\0pilotlight port {port}")
            with socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", port))
    except (OSError, OverflowError):  # taken, or past the last port there is
        for name in names:
            name.close()
        return None
    return names
