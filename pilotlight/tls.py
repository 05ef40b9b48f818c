"""Encryption for the public port out of the box: a local authority, and the server certificate it signs. Before step 1.

`ensure` is called by every start. It makes what is missing and renews what runs out or lacks a name
(`certificates.py`); otherwise it only reads. A stamp says which files were found good, for which names and until when,
and is believed as long as they are the same. Clients trust `paths.ca_cert`; the authority's key never leaves
`paths.secrets`.

The failure to survive: kill -9 half-way, or a router that starts just then. Certificate and key of the server are one
file, replaced in one step, so nobody sees a pair that does not fit.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pilotlight.addresses import of_this_machine
from pilotlight.certificate_terms import ALWAYS, NameRefused
from pilotlight.files import write_atomic
from pilotlight.parsed import json_of
from pilotlight.settings import Paths, RouterSettings, SettingsError, load


@dataclass(frozen=True)
class ServerTls:
    """What a TLS server needs. `cert_file` and `key_file` are the same file, mode 0600; give clients only `ca_file`."""

    cert_file: Path
    key_file: Path
    ca_file: Path


def names(router: RouterSettings) -> list[str]:
    """What the router's certificate must be good for besides what it always is. Where it listens on all of them: this
    machine's addresses.
    """
    host, domain = router.host, router.domain.strip(".")
    hosts = of_this_machine() if host in ("0.0.0.0", "::", "") else [host]
    return [*hosts, *([domain, f"*.{domain}"] if domain else []), *router.names]


def ensure(paths: Paths, names: Iterable[str] = (), *, now: datetime | None = None) -> ServerTls:
    """Authority and server certificate, made or renewed where needed. `names`: further DNS names (`*.domain` too) or
    addresses.

    A certificate that has all the names is kept, even if it has more; where the disk takes no new one, whichever is
    there. Raises NameRefused, OSError.
    """
    now, names = now or datetime.now(UTC), sorted(set(names))
    server, stamp = paths.secrets / "server.pem", paths.secrets / "server.stamp"
    if not _stamped(stamp, paths, server, names, now):
        from pilotlight import certificates

        try:
            until = certificates.make(paths, server, names, now)
            found = {"digest": _digest(paths, server), "names": names, "until": until.timestamp()}
            write_atomic(stamp, json.dumps(found).encode())
        except OSError as error:
            if not (server.exists() and paths.ca_cert.exists()):
                raise
            print(f"pilotlight: the certificate stays as it is: a new one cannot be written ({error})", file=sys.stderr)
    return ServerTls(cert_file=server, key_file=server, ca_file=paths.ca_cert)


def ensure_apart(paths: Paths, names: Iterable[str] = ()) -> None:
    """The same, for a process that lives long: what making certificates takes is forgotten with a child."""
    names = list(names)
    if threading.active_count() == 1:  # beside other threads a fork may inherit a lock that nobody opens
        child = os.fork()
        if child == 0:
            try:
                ensure(paths, names)
            finally:
                os._exit(0)  # whatever went wrong goes wrong again below
        os.waitpid(child, 0)
    ensure(paths, names)


def due(paths: Paths, names: Iterable[str] = (), *, now: datetime | None = None) -> bool:
    """Whether something has to be made or renewed. Cheap: only read."""
    return not _stamped(
        paths.secrets / "server.stamp",
        paths,
        paths.secrets / "server.pem",
        sorted(set(names)),
        now or datetime.now(UTC),
    )


def _stamped(stamp: Path, paths: Paths, server: Path, names: list[str], now: datetime) -> bool:
    """Whether these very files were found good for all the names, and nothing has to be renewed yet."""
    try:
        found = json_of(stamp.read_bytes())
        return (
            found["digest"] == _digest(paths, server)
            and set(names) <= set(found["names"])
            and now.timestamp() < found["until"]
        )
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return False


def _digest(paths: Paths, server: Path) -> str:
    """Of authority, its key and the server's file, and of the names the server's has anyway."""
    parts = [file.read_bytes() for file in (paths.ca_cert, paths.secrets / "ca.key", server)]
    return hashlib.sha256(
        b"\0".join([*parts, *(name.encode() for name in (*ALWAYS, socket.gethostname()))])
    ).hexdigest()


def main() -> int:
    """`python -m pilotlight.tls`: what a router that lives long has done by a child, so that it need not hold what
    draws certificates.
    """
    try:
        config = load()
        ensure(config.paths, names(config.router))
    except (SettingsError, NameRefused, OSError) as error:
        print(f"pilotlight.tls: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
