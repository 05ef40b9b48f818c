"""Chooses which certificate a TLS client of the public port is shown, and takes up a new one while we serve. Before
step 1.

Where `router.certificate` names one of the operator's, that is shown. Connections to this machine's own names
(`localhost`) get ours, by which the command line knows us. Both are looked at again every few seconds, for whoever
renews them (certbot, cert-manager, our own `tls.py`) only writes files. A handshake takes the context that counts at
that moment. The failures to survive are files that are read between two writes, or that do not fit each other. Then the
last good pair is shown, and a log line says so.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import structlog

from pilotlight import children, tls
from pilotlight.settings import Settings

LOOK_SECONDS = 5.0
DUE_SECONDS = 3600.0  # between two looks whether ours runs out, or this machine has an address that it does not name
HERE = "localhost"

log = structlog.get_logger()


class CertificateRefused(ValueError):
    """A certificate and its key cannot be used; the text names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Files in PEM: a certificate with those that link it to its authority, its own first; and its private key, maybe
    in the same file.
    """

    certificate: Path
    key: Path

    def stamp(self) -> tuple[object, ...]:
        """Differs once one of them was written anew, or another took its name. Raises OSError."""
        return tuple(
            (found.st_ino, found.st_size, found.st_mtime_ns) for found in (self.certificate.stat(), self.key.stat())
        )


class Certificates:
    """`ours`: signed by the local authority. `own`: the operator's, None where there is none. Raises
    CertificateRefused.
    """

    def __init__(self, ours: Pair, own: Pair | None = None) -> None:
        self._ours, self._own = _Shown(ours), _Own(own) if own else None
        self.context = _context(ours)  # what a connection begins with; `_choose` takes it from there
        self.context.sni_callback = self._choose

    def look(self) -> None:
        """Take up what has changed."""
        for shown in (self._ours, self._own):
            if shown is not None:
                shown.look()

    async def keep(self, seconds: float = LOOK_SECONDS) -> NoReturn:
        while True:
            await asyncio.sleep(seconds)
            self.look()

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._for(name).context

    def _for(self, name: str | None) -> _Shown:
        """`name`: what the client asks for. To an address it asks for nothing: then it gets the operator's if that
        names an address.
        """
        own = self._own
        if own is None:
            return self._ours
        if name is None:
            return own if own.names_address else self._ours
        name = name.lower().rstrip(".")
        return self._ours if name == HERE or name.endswith(f".{HERE}") else own


def of_settings(config: Settings) -> Certificates:
    """Ours, made or renewed where needed, and the operator's where there is one. Raises CertificateRefused,
    NameRefused, OSError.
    """
    made = tls.ensure(config.paths, tls.names(config.router))
    return Certificates(Pair(made.cert_file, made.key_file), own_pair(config))


def own_pair(config: Settings) -> Pair | None:
    given = config.router
    return (
        Pair(Path(given.certificate), Path(given.certificate_key or given.certificate)) if given.certificate else None
    )


async def renew(due: Callable[[], bool], seconds: float = DUE_SECONDS) -> NoReturn:
    """Have ours made anew when it is due, by a child: a router may live longer than its certificate."""
    while True:
        await asyncio.sleep(seconds)
        if due():
            child = await asyncio.create_subprocess_exec(
                *children.python("pilotlight.tls"), env=children.environment(os.environ)
            )
            if status := await child.wait():
                log.error("the certificate could not be renewed", action="certificate", status=status)


class _Shown:
    """A pair as it was last found good."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._stamp = _stamp(pair)
        self.context = _context(pair)

    def look(self) -> None:
        stamp: tuple[object, ...] = ()  # of files that are not there
        try:
            stamp = _stamp(self._pair)
            if stamp == self._stamp:
                return
            context = _context(self._pair)
        except CertificateRefused as error:
            if stamp != self._stamp:  # once for each state of the files
                log.error(
                    "a certificate is not taken; the last one is shown on", action="certificate", reason=str(error)
                )
            self._stamp = stamp
            return
        self.context, self._stamp = context, stamp
        log.info("a new certificate is shown from now on", action="certificate", file=str(self._pair.certificate))


class _Own(_Shown):
    """The operator's."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair)
        self.names_address = _names_address(pair.certificate)

    def look(self) -> None:
        before = self.context
        super().look()
        if self.context is not before:
            self.names_address = _names_address(self._pair.certificate)


def _stamp(pair: Pair) -> tuple[object, ...]:
    try:
        return pair.stamp()
    except OSError as error:
        raise CertificateRefused(
            f"{error.filename} cannot be read ({error.strerror}): correct router.certificate"
        ) from error


def _context(pair: Pair) -> ssl.SSLContext:
    """Raises CertificateRefused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(pair.certificate, pair.key, password=_no_password)
    except OSError as error:  # SSLError is one, too
        raise CertificateRefused(_why_not(pair, error)) from error
    return context


def _no_password() -> bytes:
    """Asked for the password of a key that has one. OpenSSL would ask at the terminal, and wait."""
    return b""


def _why_not(pair: Pair, error: OSError) -> str:
    if not isinstance(error, ssl.SSLError):
        which = next((file for file in (pair.certificate, pair.key) if not _readable(file)), pair.certificate)
        return f"{which} cannot be read ({error.strerror}): the router's account needs to be allowed to"
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the key in {pair.key} is not the one of the first certificate in {pair.certificate}: give the pair, its own certificate first"
    if b"ENCRYPTED" in pair.key.read_bytes()[: 1 << 16]:
        return f"the key in {pair.key} has a password: write it without (openssl pkey -in KEY -out NEW), readable by the router alone"
    return (
        f"{pair.certificate} and {pair.key} are no certificate and key in PEM ({error.reason or error}): give a chain, its own certificate "
        "first, and its private key"
    )


def _readable(file: Path) -> bool:
    try:
        with file.open("rb"):
            return True
    except OSError:
        return False


def _names_address(certificate: Path) -> bool:
    """Whether it is good for an address, as one for an internal network may be."""
    from cryptography import x509  # 4 MB, and only where somebody has a certificate of his own

    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    return bool(names.get_values_for_type(x509.IPAddress))
