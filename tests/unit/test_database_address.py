"""Addresses of Postgres as people have them: each provider's, each driver's; passwords as they come; what is about
encryption never dropped.
"""

from __future__ import annotations

import inspect
import ssl
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from asyncpg.connect_utils import _parse_connect_dsn_and_args  # type: ignore[attr-defined]
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.database.connect import transactions_are_pooled
from pilotlight.postgres_address import DRIVERS, BadAddress, understood, with_absolute_files, without_password

HOST = "postgresql://u:p@ep-cool-1.eu.example.net"

TAKEN = [
    (f"{HOST}/db?sslmode=require&channel_binding=require", "verified"),  # Neon
    (f"{HOST}/db?sslmode=require&options=endpoint%3Dep-cool-1", "require"),  # Neon, old clients
    (
        "postgres://u:p@aws-0-eu.pooler.example.com:5432/postgres?pgbouncer=true&connection_limit=1",
        "",
    ),  # Supabase, Prisma
    ("postgres://u:p@h:5432/db?sslmode=require&supa=base-pooler.x&connect_timeout=15", "require"),  # Vercel
    ("postgres://u:p@h:25060/defaultdb?sslmode=require", "require"),  # DigitalOcean, Aiven
    ("postgres://u:p@h.flycast:5432/db?sslmode=disable", "disable"),  # Fly
    ("postgresql+asyncpg://u:p@h/db", ""),  # SQLAlchemy
    ("postgresql+psycopg2://u:p@h/db?application_name=x", ""),
    (
        "jdbc:postgresql://h:5432/db?user=u&password=p&ssl=true&currentSchema=public&prepareThreshold=0",
        "require",
    ),  # JDBC
    (f"{HOST}/db?channel_binding=prefer&connect_timeout=10&gssencmode=prefer&keepalives_idle=30", ""),  # psql's own
    (f"{HOST}/db?sslmode=verify-full&sslrootcert=system", "verified"),  # libpq 16, PlanetScale
    (f"{HOST}/db?sslmode=verify-full", "verified"),
    (f"{HOST}/db?schema=public&pool_timeout=0&socket_timeout=5&statement_cache_size=0&sslaccept=strict", ""),  # Prisma
    ("postgresql://u:p@a:5432,b:5433/db?target_session_attrs=read-write&load_balance_hosts=random", ""),
    ("postgresql://u@/db?host=/run/postgresql", ""),
    ("postgresql://u:p@[::1]:5432/db", ""),
    (f"psql '{HOST}/db?sslmode=require'", "require"),  # copied whole
    (f"  {HOST}/db\n", ""),
]


@pytest.mark.parametrize(("url", "encryption"), TAKEN, ids=[url[:60] for url, _ in TAKEN])
def test_what_people_have_is_taken(url: str, encryption: str) -> None:
    address = understood(url)
    parts = urlsplit(address.dsn)
    query = dict(parse_qsl(parts.query))
    assert parts.scheme in ("postgres", "postgresql")
    assert query.keys() <= DRIVERS
    if encryption == "verified":
        assert address.arguments["ssl"].verify_mode is ssl.CERT_REQUIRED and address.arguments["ssl"].check_hostname
        assert "sslmode" not in query
    else:
        assert query.get("sslmode", "") == encryption
        assert address.arguments.get("ssl", "") == ("" if encryption else "prefer")
    assert "p@" not in address.place


def test_what_stays_says_the_same() -> None:
    address = understood("postgres://u:p@h/db?connect_timeout=15&sslmode=require")
    assert (address.dsn, address.place, address.arguments) == (
        "postgres://u:p@h:5432/db?sslmode=require",
        "h/db",
        {"timeout": 15.0, "target_session_attrs": "any"},
    )
    assert "timeout" not in understood("postgresql://u:p@h/db?connect_timeout=0").arguments
    assert understood(f"{HOST}/db?sslmode=verify-ca").arguments["ssl"].check_hostname is False


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@h",
        "postgresql:///db",
        "postgresql://u@/?host=/run",
        "postgresql://u:p@a,b:1/d",
        f"{HOST}/d?sslmode=allow",
    ],
)
def test_no_variable_of_libpq_counts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the driver itself understands what we hand it; the password's alone do."""

    def asked() -> object:
        address = understood(url)
        given = (
            dict.fromkeys(inspect.signature(_parse_connect_dsn_and_args).parameters)
            | {"dsn": address.dsn}
            | address.arguments
        )
        given.pop("timeout", None)
        hosts, parameters = _parse_connect_dsn_and_args(**given)
        return hosts, {
            name: getattr(parameters, name) for name in ("user", "database", "sslmode", "target_session_attrs")
        }

    before = asked()
    for name, value in {
        "HOST": "nowhere.example", "PORT": "1", "USER": "other", "DATABASE": "other", "SSLMODE": "verify-full", "TARGETSESSIONATTRS": "standby",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"PG{name}", value)
    assert asked() == before


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://u:p@h/db", "begins with postgresql://"),
        ("h:5432/db", "begins with postgresql://"),
        ("host=h dbname=d user=u password=p", "key=value"),
        ("postgresql://u:pa/ss@h/db", "%2F"),
        ("postgresql://u:pa?ss@h/db", "%2F, %3F"),
        ("postgresql://u:pa#ss@h/db", "%23"),
        (f"{HOST}/db?sslmod=require", "sslmod=require.*leave it out"),
        (f"{HOST}/db?sslmode=required", "sslmode=required is not one of"),
        (f"{HOST}/db?require_auth=md5", "require_auth"),
        (f"{HOST}/db?gssencmode=require", "gssencmode"),
        (f"{HOST}/db?sslmode=disable&channel_binding=require", "leave one of them out"),
        (f"{HOST}/db?sslmode=verify-full&sslrootcert=/is/not/there.pem", "not a file"),
        (f"{HOST}/db?connect_timeout=soon", "connect_timeout=soon"),
        (f"{HOST}/db?sslx={HOST}/db", "sslx=… is about encryption"),
        ("postgresql://u:p\udcff@h/db", "not UTF-8"),
        (f"{HOST}/d\x00b", "control character"),
        (f"postgresql:///db?host={HOST}", "its host= is neither"),
    ],
)
def test_what_cannot_be_used_is_named(url: str, says: str) -> None:
    with pytest.raises(BadAddress, match=says) as caught:
        understood(url)
    assert "pa" not in str(caught.value).replace("password", "").replace("passfile", "") or "pa" not in url


@pytest.mark.parametrize("password", ["p@ss", "p%ss", "p:ss", "pä ss", "p%40ss", "a@b@c", "$&+,;=!", "100%"])
def test_a_password_as_it_is_typed(password: str) -> None:
    """Percent-encoded where it has to be; what is encoded already stays so."""
    address = understood(f"postgresql://u:{password}@h/db")
    parts = urlsplit(address.dsn)
    from urllib.parse import unquote

    assert (parts.hostname, unquote(parts.password or "")) == ("h", unquote(password))


def test_files_are_named_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert with_absolute_files("postgresql://u@h/db?sslmode=verify-full&sslrootcert=ca.pem").endswith(
        f"sslrootcert={str(tmp_path / 'ca.pem').replace('/', '%2F')}"
    )
    assert with_absolute_files("postgresql://u@h/db?sslrootcert=system") == "postgresql://u@h/db?sslrootcert=system"
    assert with_absolute_files("postgresql://u:p@h/db") == "postgresql://u:p@h/db"


def test_no_password_is_shown() -> None:
    assert without_password("postgresql://u:secret@h/db") == "postgresql://u:…@h/db"
    assert without_password("postgresql://u:se@cret@h/db") == "postgresql://u:…@h/db"
    assert "secret" not in without_password(
        "jdbc:postgresql://h/db?user=u&password=secret&sslpassword=secret&sslmode=require"
    )


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_is_refused_with_words(text: str) -> None:
    for url in (text, f"postgresql://{text}", f"postgresql://u:p@h/d?{text}"):
        try:
            address = understood(url)
        except BadAddress as error:
            assert str(error)
        else:
            assert urlsplit(address.dsn).scheme in ("postgres", "postgresql")


@pytest.mark.parametrize(
    ("ours", "theirs", "pooled"),
    [
        ([1, 1, 1, 1], [2, 2, 2, 2], False),  # a server, or a pooler in session mode
        ([1, 1, 1, 1], [1, 1, 1, 1], True),  # one server connection for both
        ([1, 2, 1, 2], [2, 1, 2, 1], True),  # in turns
        ([1, 3, 5, 7], [2, 4, 6, 8], True),  # never twice the same
    ],
)
def test_whose_connection_is_whose(ours: list[int], theirs: list[int], pooled: bool) -> None:
    assert transactions_are_pooled(ours, theirs) is pooled
