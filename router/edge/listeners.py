"""Opens the sockets of the public face: the HTTPS port, and plain HTTP for a proxy on this machine where the operator
has one.

Before step 1. Sockets are bound once, by the router's parent, and inherited by its workers, so a port never closes
while a worker dies. Two failures to survive. A kill -9 leaves a Unix socket behind: it is taken over, but not one that
somebody answers on. And a worker is told its sockets by number.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pilotlight.networks import listening
from pilotlight.settings import Settings

BACKLOG = 2048
SOCKET_MODE = 0o660  # whoever is of the router's group may connect: the proxy
NONE = -1


@dataclass(frozen=True, slots=True)
class Listeners:
    public: socket.socket
    plain: socket.socket | None = None

    @classmethod
    def bind(cls, config: Settings) -> Listeners:
        """Raises OSError; which of them cannot be bound stands in its `filename`."""
        public = _named(
            f"port {config.router.port} on {config.router.host}", _tcp, config.router.host, config.router.port
        )
        place = listening(config.router.plain)
        if place is None:
            return cls(public)
        try:
            named = f"{config.router.plain} (router.plain)"
            return cls(
                public,
                _named(named, _unix, Path(place.path)) if place.path else _named(named, _tcp, place.host, place.port),
            )
        except OSError:
            public.close()
            raise

    @classmethod
    def inherited(cls, descriptors: str) -> Listeners:
        public, plain = (int(number) for number in descriptors.split(","))
        return cls(socket.socket(fileno=public), None if plain == NONE else socket.socket(fileno=plain))

    @property
    def descriptors(self) -> tuple[int, ...]:
        return tuple(each.fileno() for each in (self.public, self.plain) if each is not None)

    def __str__(self) -> str:
        """As `inherited` reads it."""
        return f"{self.public.fileno()},{self.plain.fileno() if self.plain else NONE}"

    def close(self) -> None:
        for each in (self.public, self.plain):
            if each is not None:
                each.close()


def _named(what: str, make: Callable[..., socket.socket], *arguments: object) -> socket.socket:
    try:
        return make(*arguments)
    except OSError as error:
        error.filename = what
        raise


def _tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    # Connections inherit these: a client that vanished without a word does not wait for its answer for ever.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4)):
        listener.setsockopt(socket.IPPROTO_TCP, option, value)
    return listener


def _unix(path: Path) -> socket.socket:
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as asked:
            try:
                asked.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()  # left by a router that was killed
            else:
                raise OSError(errno.EADDRINUSE, "another program answers there")
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        path.chmod(SOCKET_MODE)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
