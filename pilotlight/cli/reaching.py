"""How the command line reaches the installation of its own machine, whatever certificate others are shown.

By the name `localhost` the router shows the certificate of our own authority, also where the operator has another. The
router may not lead to the admin API (`router.admin` is off). Then the admin process is asked at its socket, which only
its owner can open.
"""

from __future__ import annotations

import socket
import ssl
from http.client import HTTPConnection
from pathlib import Path

HERE = "localhost"


class LocalConnection(HTTPConnection):
    """To the router's HTTPS port. Raises OSError."""

    def __init__(self, host: str, port: int | None, *, timeout: float, context: ssl.SSLContext) -> None:
        super().__init__(host, port or 443, timeout=timeout)
        self._tls = context

    def connect(self) -> None:
        super().connect()
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=HERE)


class AdminConnection(HTTPConnection):
    """To the admin process. Raises OSError."""

    def __init__(self, place: Path, *, timeout: float) -> None:
        super().__init__(HERE, timeout=timeout)
        self._place = place

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._place))
