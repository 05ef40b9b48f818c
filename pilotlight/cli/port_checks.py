"""Is a port ours to take, and where is it reached? Asked before anything is started: a taken one is told at once,
nothing is undone.
"""

from __future__ import annotations

import errno
import socket

from pilotlight.settings import Settings

STEP = 64  # as many workers as there may be, each with a port of its own
MOST_INSTALLATIONS = 32
REASONS = {
    errno.EADDRINUSE: "another program has it: stop that (`ss -ltnp` names it), or choose another port with --port",
    errno.EADDRNOTAVAIL: "this machine has no such address: choose another with --host",
    errno.EACCES: "ports below 1024 need privileges: choose another with --port",
}


def here(host: str) -> str:
    """Where this machine's own programs reach what listens on `host`: every address (`0.0.0.0`, `::`) is none to
    connect to.
    """
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)


class PortTaken(Exception):
    """We cannot listen there; the text says why and what to do."""


def need_port(host: str, port: int) -> None:
    """Raises PortTaken."""
    if reason := why_not(host, port):
        raise PortTaken(f"cannot listen on {host} port {port}: {reason}")


def with_metrics_port(settings: Settings) -> Settings:
    """These settings with ports of /metrics that are free: as given, or, where nobody gave any, the next that are.
    Raises PortTaken.

    Two installations on one machine would else read each other's figures.
    """
    router = settings.router
    given = "metrics_port" in router.model_fields_set
    for first in range(router.metrics_port, router.metrics_port + (1 if given else MOST_INSTALLATIONS * STEP), STEP):
        reasons = [
            f"{port}: {reason}"
            for port in range(first, first + router.workers)
            if (reason := why_not("127.0.0.1", port))
        ]
        if not reasons:
            return settings.model_copy(update={"router": router.model_copy(update={"metrics_port": first})})
    remedy = "another program has it: choose another with PILOTLIGHT_ROUTER__METRICS_PORT"
    raise PortTaken(f"cannot serve /metrics on 127.0.0.1 port {reasons[0].partition(':')[0]}: {remedy}")


def why_not(host: str, port: int) -> str:
    """Empty where one can listen there, as the router does; the port is free again when this returns."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1)
    except socket.gaierror as error:
        return f"{host} is not an address ({error.strerror}): choose another with --host"
    except OSError as error:
        return REASONS.get(error.errno or 0, error.strerror or str(error))
    return ""
