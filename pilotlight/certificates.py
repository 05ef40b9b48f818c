"""The local authority and the server certificate it signs: made, or renewed, where `tls.ensure` found that they have to
be.

Apart from `tls.py` because cryptography is 8 MB of every process that imports it, and is needed on a handful of days a
year.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pilotlight.certificate_terms import ALWAYS, AUTHORITY_DAYS, RENEW_DAYS, SERVER_DAYS, NameRefused
from pilotlight.files import write_atomic
from pilotlight.settings import Paths

AUTHORITY = "Pilotlight local authority"  # and a number
CLOCK_SKEW = timedelta(days=1)

_DNS_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


def make(paths: Paths, server: Path, names: Iterable[str], now: datetime) -> datetime:
    """Have `server` hold a certificate for all `names` that is good at `now`. Returns when something must be
    renewed.
    """
    wanted = [_general_name(name) for name in dict.fromkeys((*ALWAYS, *_host_name(), *names))]
    authority_key, authority = _authority(paths, now)
    if not _still_good(server, authority, wanted, now):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _sign_server(authority_key, authority, key.public_key(), wanted, now)
        _keep_aside(server, authority)
        write_atomic(server, _private_pem(key) + _public_pem(certificate))
    ends = (authority.not_valid_after_utc, x509.load_pem_x509_certificate(server.read_bytes()).not_valid_after_utc)
    return min(ends) - timedelta(days=RENEW_DAYS)


def _authority(paths: Paths, now: datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """The authority on disk where it is whole and lives long enough, else a new one."""
    key_file = paths.secrets / "ca.key"
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate(paths.ca_cert.read_bytes())
    except (FileNotFoundError, ValueError):
        pass
    else:
        lasts = certificate.not_valid_after_utc - now > timedelta(days=RENEW_DAYS)
        if lasts and isinstance(key, ec.EllipticCurvePrivateKey) and certificate.public_key() == key.public_key():
            return key, certificate
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign_authority(key, now)
    write_atomic(key_file, _private_pem(key))  # the key first: a certificate alone would be trusted and useless
    write_atomic(paths.ca_cert, _public_pem(certificate), mode=0o644)
    return key, certificate


def _still_good(server: Path, authority: x509.Certificate, wanted: list[x509.GeneralName], now: datetime) -> bool:
    """Whether the server's file is whole, signed by this authority, has all names and more than RENEW_DAYS left."""
    try:
        pem = server.read_bytes()
        key = serialization.load_pem_private_key(pem, password=None)
        certificate = x509.load_pem_x509_certificate(pem)
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    lasts = certificate.not_valid_after_utc - now > timedelta(days=RENEW_DAYS)
    return lasts and certificate.public_key() == key.public_key() and set(wanted) <= set(names)


def _keep_aside(server: Path, authority: x509.Certificate) -> None:
    """A certificate that somebody put in the place of ours is not lost, and he hears what to do."""
    try:
        found = x509.load_pem_x509_certificate(server.read_bytes())
    except (FileNotFoundError, ValueError):
        return
    if _ours(found.issuer) or found.issuer == authority.subject:
        return
    aside = server.with_name("server.pem.yours")
    server.replace(aside)
    print(
        f"pilotlight: {server} held a certificate that is not of our authority; it is now {aside}. To use one of your own, keep it "
        "elsewhere and name it in router.certificate and router.certificate_key.",
        file=sys.stderr,
    )


def _ours(issuer: x509.Name) -> bool:
    return any(str(name.value).startswith(AUTHORITY) for name in issuer.get_attributes_for_oid(NameOID.COMMON_NAME))


def _sign_authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"{AUTHORITY} {x509.random_serial_number() % 16**8:08x}")]
    )
    return (
        _begin(name, name, key.public_key(), now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _sign_server(
    authority_key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    key: ec.EllipticCurvePublicKey,
    names: list[x509.GeneralName],
    now: datetime,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Pilotlight")])
    issuer = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _begin(subject, authority.subject, key, now, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now - CLOCK_SKEW + timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        pass
    star, rest = ("*.", name[2:]) if name.startswith("*.") else ("", name)
    try:
        ascii_name = rest.lower().rstrip(".").encode("idna").decode()
    except UnicodeError:
        ascii_name = ""
    if not _DNS_NAME.fullmatch(ascii_name):
        raise NameRefused(
            f"{name!r} cannot stand in a certificate: give DNS names (llm.example.org, *.example.org) or IP addresses"
        )
    return x509.DNSName(star + ascii_name)


def _host_name() -> list[str]:
    """This machine's name where it is one that a certificate can hold."""
    name = socket.gethostname()
    try:
        _general_name(name)
    except NameRefused:
        return []
    return [name]


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def _public_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
