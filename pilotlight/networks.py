"""Addresses as settings name them: networks whose proxies are trusted, and where plain HTTP may be listened for.

Pure. What is wrong is refused with what may stand there: a network that was mistyped would trust nobody, or everybody.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from pilotlight.lists import words

UNIX = "unix"
LONGEST_PATH = 107  # bytes of a socket's path that the kernel holds
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a plain listener is: a path, or a loopback address and a port."""

    path: str = ""
    host: str = ""
    port: int = 0


def network(text: str) -> Network:
    """An address is a network of one. Raises ValueError."""
    try:
        return ipaddress.ip_network(text.strip().strip("[]"), strict=False)
    except ValueError:
        raise ValueError(
            f"{text[:100]!r} is not an address: give an IP address, a network such as 10.0.0.0/8, or unix"
        ) from None


def listening(text: str) -> Listening | None:
    """What `router.plain` says; None for nothing. Raises ValueError."""
    text = text.strip()
    if not text:
        return None
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/"):
            raise ValueError("a Unix socket is named by its whole path, as unix:/run/pilotlight/http.sock")
        if len(os.fsencode(path)) > LONGEST_PATH:
            raise ValueError(
                f"the path has more than {LONGEST_PATH} bytes, the kernel's limit for a socket: choose a shorter one"
            )
        return Listening(path=path)
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    try:
        loopback = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        number = int(port) if port.isascii() and port.isdigit() else 0
    except ValueError:
        loopback, number = None, 0
    if loopback is None or not 0 < number < 65536:
        raise ValueError(f"{text[:100]!r} is not a place to listen: give 127.0.0.1:PORT, [::1]:PORT or unix:/PATH")
    if not loopback.is_loopback:
        raise ValueError(
            "keys and prompts would cross the network unencrypted: give a loopback address or unix:/PATH, and let a proxy "
            "here encrypt, or use the HTTPS port"
        )
    return Listening(host=str(loopback), port=number)


def _trusted(value: object) -> object:
    parts = words(value, what="addresses and networks, such as 10.0.0.0/8")
    return tuple(
        dict.fromkeys(UNIX if part.strip().lower().rstrip(":") == UNIX else str(network(part)) for part in parts)
    )


def _place(value: str) -> str:
    listening(value)
    return value.strip()


Networks = Annotated[tuple[str, ...], BeforeValidator(_trusted)]
Plain = Annotated[str, AfterValidator(_place)]
