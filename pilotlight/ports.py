"""Ports for installations that stand beside others: the demo, benchmarks and tests. Before step 1.

The failure to survive: a port that was free when we looked, and is another's when the router binds it. Such a port is taken by
one of two: a second program of ours that looked at the same moment, or any connection to elsewhere, for which the kernel picks
a port of its own range. So the ports given out here lie outside that range where it leaves room, and each is claimed for the
life of this process by a name in the kernel's abstract sockets, which goes with the process however it ends.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

FIRST, LAST = 10_000, 65_535
KERNELS = Path("/proc/sys/net/ipv4/ip_local_port_range")
TRIES = 1000

_claims: list[socket.socket] = []  # open until this process ends


def free_port() -> int:
    """A TCP port that nobody listens on, that the kernel gives to no connection, and that no other process gets from here.

    Raises OSError when none was found.
    """
    return claim(random.Random().sample(candidates(KERNELS.read_text()), TRIES))


def candidates(kernels: str, *, least: int = 2 * TRIES) -> list[int]:
    """The ports outside the kernel's range, "first last"; all of ours, where it leaves too few. Pure."""
    low, high = (int(word) for word in kernels.split())
    outside = [port for port in range(FIRST, LAST + 1) if not low <= port <= high]
    return outside if len(outside) >= least else list(range(FIRST, LAST + 1))


def claim(ports: list[int]) -> int:
    """The first of these ports that could be claimed and bound."""
    for port in ports:
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0pilotlight port {port}")
            with socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", port))
        except OSError:  # another process has it: the next one
            name.close()
            continue
        _claims.append(name)
        return port
    raise OSError(f"no free port among {len(ports)} from {FIRST} to {LAST}: too many programs listen here")
