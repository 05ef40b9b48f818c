"""A strict client accepts our certificate for our names and for no other; it is kept while it is good and made anew
when not.
"""

from __future__ import annotations

import ssl
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from pilotlight import certificate_terms, certificates, tls
from pilotlight.settings import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(tmp_path / "state")
    made.make()
    return made


def handshake(server: tls.ServerTls, name: str) -> None:
    """A TLS handshake in memory, with the checks Python 3.13 turns on by default. Raises ssl.SSLError."""
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(server.cert_file, server.key_file)
    theirs = ssl.create_default_context(cafile=str(server.ca_file))
    theirs.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        ours.wrap_bio(to_server, to_client, server_side=True),
        theirs.wrap_bio(to_client, to_server, server_hostname=name),
    ]
    for _ in range(6):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert sides[1].version() == "TLSv1.3"


def serial(server: tls.ServerTls) -> int:
    return x509.load_pem_x509_certificate(server.cert_file.read_bytes()).serial_number


@pytest.mark.parametrize(
    "name",
    ["localhost", "127.0.0.1", "::1", "chat.pilotlight.localhost", "llm.example.org", "chat.example.org", "10.0.0.7"],
)
def test_a_strict_client_accepts_every_name(paths: Paths, name: str) -> None:
    handshake(tls.ensure(paths, ["llm.example.org", "*.example.org", "10.0.0.7"]), name)


@pytest.mark.parametrize("name", ["example.com", "127.0.0.2", "a.b.pilotlight.localhost"])
def test_a_client_refuses_other_names(paths: Paths, name: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tls.ensure(paths), name)


def test_openssl_takes_no_wildcard_right_below_localhost(paths: Paths) -> None:
    """Why `*.pilotlight.localhost` is there too. Should this fail one day, that name can go."""
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tls.ensure(paths), "chat.localhost")


def test_modes(paths: Paths) -> None:
    server = tls.ensure(paths)
    assert (paths.secrets / "ca.key").stat().st_mode & 0o777 == 0o600
    assert server.key_file.stat().st_mode & 0o777 == 0o600
    assert server.ca_file == paths.ca_cert
    assert server.ca_file.stat().st_mode & 0o777 == 0o644
    assert b"PRIVATE" not in server.ca_file.read_bytes()


@pytest.mark.parametrize(
    ("before", "after", "days", "kept"),
    [
        ((), (), 0, True),
        (("a.example",), (), 0, True),  # a caller that names less does not take names away
        ((), ("a.example",), 0, False),
        ((), (), certificate_terms.SERVER_DAYS - certificate_terms.RENEW_DAYS - 3, True),
        ((), (), certificate_terms.SERVER_DAYS - certificate_terms.RENEW_DAYS, False),
    ],
)
def test_kept_while_good(paths: Paths, before: Iterable[str], after: Iterable[str], days: int, kept: bool) -> None:
    authority = None
    now = datetime.now(UTC)
    first = serial(tls.ensure(paths, before, now=now))
    authority = paths.ca_cert.read_bytes()
    assert (serial(tls.ensure(paths, after, now=now + timedelta(days=days))) == first) == kept
    assert paths.ca_cert.read_bytes() == authority


def test_what_was_found_good_is_not_looked_at_again_until_it_changes(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls.ensure(paths, ["a.example", "b.example"])
    looked: list[list[str]] = []
    real = certificates.make

    def make(paths: Paths, server: Path, names: list[str], now: datetime) -> datetime:
        looked.append(names)
        return real(paths, server, names, now)

    monkeypatch.setattr(certificates, "make", make)
    tls.ensure(paths, ["b.example"])
    assert not looked
    tls.ensure(paths, ["c.example"])
    assert looked.pop() == ["c.example"]
    for file in (paths.secrets / "ca.key", paths.ca_cert, paths.secrets / "server.pem", paths.secrets / "server.stamp"):
        file.write_bytes(b"")
        tls.ensure(paths)
        assert looked.pop() == [], file
        tls.ensure(paths)
        assert not looked


def test_a_child_makes_them_and_what_it_refuses_is_refused(paths: Paths) -> None:
    """In a process of its own: only one that has a single thread forks, and a run of the tests may have more."""
    program = f"""
import sys
from pathlib import Path
from pilotlight import certificate_terms, tls
from pilotlight.settings import Paths
paths = Paths(Path({str(paths.state)!r}))
tls.ensure_apart(paths)
assert "cryptography" not in sys.modules
try:
    tls.ensure_apart(paths, ["a b"])
except certificate_terms.NameRefused:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("refused\n", "")
    handshake(tls.ensure(paths), "localhost")


def test_a_new_authority_signs_anew(paths: Paths) -> None:
    tls.ensure(paths)
    paths.ca_cert.unlink()  # or kill -9 between its key and itself
    handshake(tls.ensure(paths), "localhost")


def test_an_old_authority_is_replaced_in_time(paths: Paths) -> None:
    tls.ensure(paths, now=datetime.now(UTC) - timedelta(days=certificate_terms.AUTHORITY_DAYS - 20))
    handshake(tls.ensure(paths), "localhost")


@pytest.mark.parametrize("damage", [b"", b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"])
def test_damaged_files_are_made_anew(paths: Paths, damage: bytes) -> None:
    server = tls.ensure(paths)
    server.cert_file.write_bytes(damage)
    handshake(tls.ensure(paths), "localhost")
    paths.ca_cert.write_bytes(damage)
    handshake(tls.ensure(paths), "localhost")


@pytest.mark.parametrize("name", ["", "a b", "*", "*.*.x", "a" * 64 + ".x", "a..b", "http://x"])
def test_bad_names_are_refused(paths: Paths, name: str) -> None:
    with pytest.raises(certificate_terms.NameRefused, match="certificate"):
        tls.ensure(paths, [name])
