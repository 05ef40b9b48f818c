"""Where Postgres does not let us in, one line says what to do; tried against a Debian server with TLS, kept here by the
errors it gave.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest

from pilotlight.database.connect import unreachable
from pilotlight.database.remedies import AWAY, remedy
from pilotlight.postgres_address import BadAddress, understood
from tests.certificates import write_pair


def handshake(folder: Path, *, trusts: str, name: str, days: float = 9) -> ssl.SSLCertVerificationError:
    """What OpenSSL says of a server's certificate that we do not accept. `trusts`: which pair's certificate is an
    authority here.
    """
    pair = write_pair(folder, "db.test", name="server", days=days)
    write_pair(folder, "other.test", name="other")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(pair.certificate, pair.key)
    context = ssl.create_default_context(cafile=str(folder / f"{trusts}.pem"))
    pipes = [ssl.MemoryBIO() for _ in range(2)]
    server = served.wrap_bio(pipes[0], pipes[1], server_side=True)
    client = context.wrap_bio(pipes[1], pipes[0], server_hostname=name)
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        for side in (client, server, client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return caught.value


@pytest.mark.parametrize(
    ("trusts", "name", "days", "says"),
    [("other", "db.test", 9, "sslrootcert"), ("server", "db2.test", 9, "another name"), ("server", "127.0.0.1", 9, "another name"),
     ("server", "db.test", -1, "renew it")],
)  # fmt: skip
def test_what_is_wrong_with_a_certificate_is_told_apart(
    tmp_path: Path, trusts: str, name: str, days: float, says: str
) -> None:
    assert says in remedy(handshake(tmp_path, trusts=trusts, name=name, days=days))


ACCESS = asyncpg.InvalidAuthorizationSpecificationError
ERRORS = [
    (asyncpg.InvalidPasswordError('password authentication failed for user "u"'), "look at user and password"),
    (ACCESS('no pg_hba.conf entry for host "::1", user "u", database "d", no encryption'), "sslmode=require"),
    (ACCESS('no pg_hba.conf entry for host "::1", user "u", database "d", SSL encryption'), "sslmode=disable"),
    (ACCESS("connection requires a valid client certificate"), "sslcert and sslkey"),
    (ACCESS('role "u" is not permitted to log in'), "pg_hba.conf"),
    (asyncpg.TooManyConnectionsError("too many connections for role"), "max_connections"),
    (asyncpg.CannotConnectNowError("the database system is starting up"), "try again soon"),
    (asyncpg.InvalidCatalogNameError('database "d" does not exist'), "CREATE DATABASE"),
    (asyncpg.InsufficientPrivilegeError("permission denied for schema pilotlight"), "grant"),
    (asyncpg.ClientConfigurationError("No such TLS version: TLSv9"), "correct that part"),
    (socket.gaierror(-2, "Name or service not known"), "DNS"),
    (ConnectionError('PostgreSQL server at "h:1" rejected SSL upgrade'), "ssl = on"),
    (ssl.SSLError(1, "[SSL: TLSV1_ALERT_PROTOCOL_VERSION]"), "ssl_min_protocol_version"),
    (ConnectionRefusedError(111, "Connect call failed"), AWAY),
    (TimeoutError(), AWAY),
]


@pytest.mark.parametrize(("error", "says"), ERRORS, ids=[f"{type(error).__name__}: {says}" for error, says in ERRORS])
def test_each_way_to_be_turned_away_has_its_remedy(error: Exception, says: str) -> None:
    told = str(unreachable("postgresql://u:secret@h/d", error))
    assert (
        told.endswith(remedy(error))
        and says in told
        and "h:5432" not in told
        and "secret" not in told
        and "\n" not in told
    )


@pytest.mark.parametrize(
    ("url", "given"),
    [("u@h/d", False), ("u:p@h/d", True), ("h/d?user=u&password=p", True), ("u@h/d?passfile=/x", True)],
)
def test_whether_a_password_was_given_is_known(url: str, given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.delenv("PGPASSFILE", raising=False)
    error = asyncpg.InvalidPasswordError("password authentication failed")
    assert ("PGPASSWORD" in str(unreachable(f"postgresql://{url}", error))) is not given
    monkeypatch.setenv("PGPASSWORD", "p")
    assert understood(f"postgresql://{url}").password


MODES = ("", "require", "verify-full")


@pytest.mark.parametrize("mode", MODES)
def test_a_certificate_of_ours_is_read_before_anybody_is_asked(tmp_path: Path, mode: str) -> None:
    plain, locked = write_pair(tmp_path, "u", name="plain"), write_pair(tmp_path, "u", name="locked", password=b"pw")

    def address(certificate: object, key: object, more: str = "") -> str:
        files = f"sslcert={quote(str(certificate))}" + (f"&sslkey={quote(str(key))}" if key else "")
        return f"postgresql://u@h/d?{files}&sslmode={mode or 'prefer'}{more}"

    for good in (address(plain.certificate, plain.key), address(locked.certificate, locked.key, "&sslpassword=pw")):
        assert understood(good).place == "h/d"
    for bad, says in (
        (address(plain.certificate, tmp_path / "nowhere"), "sslkey=.*nowhere is not a file"),
        (address(tmp_path / "nowhere", plain.key), "sslcert=.*nowhere is not a file"),
        (address(plain.certificate, locked.key, "&sslpassword=pw"), "do not belong together"),
        (address(locked.certificate, locked.key), "sslpassword"),
        (address(locked.certificate, locked.key, "&sslpassword=no"), "sslpassword"),
        (address(plain.certificate, ""), "cannot be used"),
    ):
        with pytest.raises(BadAddress, match=says):
            understood(bad)
    understood("postgresql://u@h/d?sslmode=disable&sslcert=/nowhere")
