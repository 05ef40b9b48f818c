"""Addresses at which this machine is reached: what a certificate has to name where the public port listens on all of
them.

Read from the kernel's own tables. One that cannot be read, or is not there, names nothing: then the certificate has
fewer names.
"""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from pathlib import Path

MOST_ADDRESSES = 64  # a machine full of containers may have more; a certificate is sent in every handshake
_LOCAL4 = re.compile(r"\|-- (\S+)\s+/32 host LOCAL")
_TEMPORARY = 0x01  # of an IPv6 address' flags: gone tomorrow


def of_this_machine(proc: Path = Path("/proc/net")) -> list[str]:
    """Its addresses, sorted, without those of loopback, of a single link, and temporary ones."""
    found: set[ipaddress.IPv4Address | ipaddress.IPv6Address] = set()
    with suppress(OSError, ValueError):
        found |= {ipaddress.IPv4Address(text) for text in _LOCAL4.findall((proc / "fib_trie").read_text())}
    with suppress(OSError, ValueError, IndexError):
        for line in (proc / "if_inet6").read_text().splitlines():
            digits, _, _, _, flags, *_ = line.split()
            if not int(flags, 16) & _TEMPORARY:
                found.add(ipaddress.IPv6Address(int(digits, 16)))
    stable = [
        address for address in found if not (address.is_loopback or address.is_link_local or address.is_unspecified)
    ]
    return [str(address) for address in sorted(stable, key=lambda address: (address.version, address))[:MOST_ADDRESSES]]
