"""The address of a Postgres: what a provider prints, turned into what our driver understands. Standard library only.

The failure to survive: an address that works with `psql` and not with us. Drivers' names in the scheme are understood.
So are parameters of libpq, of pools and of other drivers, or they are passed over where they say nothing to us. What is
about encryption is never passed over. Of libpq's variables (`PGHOST`, `PGSSLMODE` …) only the password's count,
`PGPASSWORD` and `PGPASSFILE`.
"""

from __future__ import annotations

import os
import pwd
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from pilotlight.paths import absolute

SCHEME = re.compile(r"(?:jdbc:)?(postgres(?:ql)?)(?:\+[a-z0-9_]+)?://", re.I)
SOCKETS = "/run/postgresql,/var/run/postgresql,/tmp,localhost"  # where a server of this machine is looked for
HOST = re.compile(r"(?:\[[0-9a-f:.]+\]|[a-z0-9._%-]*)(?::\d{1,5})?", re.I)
# Parameters the driver knows, as libpq means them. Everything else stays here.
DRIVERS = frozenset(
    {
        "host",
        "port",
        "dbname",
        "user",
        "password",
        "passfile",
        "sslmode",
        "sslcert",
        "sslkey",
        "sslrootcert",
        "sslcrl",
        "sslpassword",
    }
    | {
        "sslnegotiation",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "target_session_attrs",
        "krbsrvname",
        "gsslib",
        "options",
    }
)
ALIASES = {"database": "dbname", "hostaddr": "host"}
FILES = ("sslcert", "sslkey", "sslrootcert", "sslcrl", "passfile")
UNWRITTEN = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # what an address cannot hold as it is
SECRET = re.compile(r"(^|[?&])((?:ssl)?password=)[^&]*", re.I)
# About encryption, and of no meaning to us: with these values they ask for nothing that we do not do.
HARMLESS = {
    "channel_binding": {"prefer", "disable"},
    "gssencmode": {"prefer", "disable"},
    "sslcompression": {"0", "false"},
    "sslsni": {"0", "1"},
    "requiressl": {"0"},
    "sslaccept": {"strict", "accept_invalid_certs"},  # of Prisma: sslmode says it to us
    "require_auth": {"scram-sha-256"},  # what we do, where the server asks for a password by it
}
ABOUT_SECURITY = re.compile(r"ssl|tls|gss|channel|require|auth|krb|scram|oauth", re.I)
LONGEST_PATH = 300  # characters of one in an error
WEAK = ("", "allow", "prefer", "require")  # sslmode: whoever answers is believed


class BadAddress(ValueError):
    """No address of a Postgres that we can use; the text names the part and what to write instead. Never a password."""


@dataclass(frozen=True)
class Address:
    """An address as our driver takes it."""

    dsn: str  # for the driver, with nothing in it that it would send on as a setting of the session
    place: str  # for people: host and database
    arguments: dict[str, Any] = field(default_factory=dict)  # for the driver besides: timeout, ssl
    password: bool = False  # whether one is in it, or in the variables of libpq that count


def understood(url: str) -> Address:
    """Raises BadAddress."""
    scheme, userinfo, hosts, path, query = _parts(url)
    given, shown = _parameters(query), hosts
    kept = {name: value for name, value in given.items() if name in DRIVERS}
    arguments: dict[str, Any] = {}
    if seconds := given.get("connect_timeout", ""):
        if not re.fullmatch(r"\d+(\.\d+)?", seconds):
            raise BadAddress(f"connect_timeout={_short(seconds)} is not a number of seconds")
        if float(seconds) > 0:
            arguments["timeout"] = float(seconds)
    if not all(host.startswith("/") or HOST.fullmatch(host) for host in kept.get("host", "").split(",")):
        raise BadAddress("its host= is neither a name or address nor the folder of a socket: host=/run/postgresql")
    _encrypt(given, kept, arguments)
    if not userinfo.partition(":")[0] and not kept.get("user"):
        kept["user"] = _own_name()
    user = f"{userinfo}@" if userinfo else ""
    if "port" not in kept:
        hosts = ",".join(
            f"{host}:5432" if host and not re.search(r":\d+$", host) else host for host in hosts.split(",")
        )
    _settle(kept, arguments, hosts=hosts, path=path, user=kept.get("user") or unquote(userinfo.partition(":")[0]))
    tail = f"?{urlencode(kept)}" if kept else ""
    password = any(
        (
            ":" in userinfo,
            kept.get("password"),
            kept.get("passfile"),
            os.environ.get("PGPASSWORD"),
            os.environ.get("PGPASSFILE"),
        )
    )
    return Address(
        f"{scheme}://{user}{hosts}{path}{tail}", f"{shown or kept.get('host', '?')}{path}", arguments, password
    )


def _settle(kept: dict[str, str], arguments: dict[str, Any], *, hosts: str, path: str, user: str) -> None:
    """What the address leaves open is said, as libpq has it: the driver would ask variables of libpq, which somebody
    set for another program.
    """
    if "sslmode" not in kept:
        arguments.setdefault("ssl", "prefer")
    if "target_session_attrs" not in kept:
        arguments["target_session_attrs"] = "any"
    if not hosts:
        kept.setdefault("host", SOCKETS)
        kept.setdefault("port", "5432")
    if path in ("", "/"):
        kept.setdefault("dbname", user)


def with_absolute_files(url: str) -> str:
    """The same address with its files named whole: processes with other working folders read it too. Raises
    SettingsError.
    """
    head, mark, query = url.partition("?")
    if not mark or not any(name in query for name in FILES):
        return url
    pairs = parse_qsl(query, keep_blank_values=True)
    return f"{head}?{urlencode([(name, _absolute_file(name, value)) for name, value in pairs])}"


def without_password(text: str) -> str:
    """For people: an address, or any text that is none. Pure."""
    return SECRET.sub(r"\1\2…", re.sub(r"(://[^:/@?]*):.*@", r"\1:…@", text))


def _absolute_file(name: str, value: str) -> str:
    return str(absolute(Path(value))) if name in FILES and value and value != "system" else value


def _parts(url: str) -> tuple[str, str, str, str, str]:
    """(scheme, user and password, hosts, path, query); a password with `@` or `%` as it is typed is taken. Raises
    BadAddress.
    """
    text = re.sub(r"^psql\s+", "", url.strip()).strip("'\"")
    if UNWRITTEN.search(text):
        raise BadAddress("it has a control character, or bytes that are not UTF-8: write such a byte as %XX")
    found = SCHEME.match(text)
    if not found:
        if re.match(r"\s*\w+\s*=", text):
            raise BadAddress("it is a list of key=value: write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
        raise BadAddress("it begins with postgresql://: postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    rest, _, _fragment = text[found.end() :].partition("#")
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    userinfo, at, hosts = authority.rpartition("@")
    after = text[found.end() + len(authority) :]
    if not all(HOST.fullmatch(host) for host in hosts.split(",")) or (not at and "@" in after.partition("?")[0]):
        if "@" in text[found.end() + len(userinfo) + len(at) :]:
            raise BadAddress("its password holds / ? or #: write them as %2F, %3F and %23")
        raise BadAddress("its host or its port is malformed: postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    path, _, query = after.partition("#")[0].partition("?")
    user, colon, password = userinfo.partition(":")
    return found[1].lower(), f"{_quoted(user)}{colon}{_quoted(password)}", hosts, quote(path, safe="/%"), query


def _quoted(text: str) -> str:
    """Percent-encoded, but for what is so already."""
    return re.sub(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9._~%!$&'()*+,;=-]", lambda match: quote(match[0], safe=""), text)


def _parameters(query: str) -> dict[str, str]:
    """Those that mean something to us. Raises BadAddress for one about encryption that we do not know."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        name = ALIASES.get(name.lower(), name.lower())
        if name == "ssl":  # of JDBC and Node
            found.setdefault("sslmode", "require" if value.lower() in ("", "1", "true", "require") else "prefer")
        elif name in DRIVERS or name == "connect_timeout":
            if value or name not in found:
                found[name] = value
        elif name == "channel_binding" and value == "require":
            found[name] = value
        elif ABOUT_SECURITY.search(name) and value.lower() not in HARMLESS.get(name, set()):
            raise BadAddress(
                f"{_short(name)}={_short(value)} is about encryption, and is not supported: leave it out, or use sslmode and sslrootcert"
            )
    return {name: value for name, value in found.items() if value}


def _encrypt(given: Mapping[str, str], kept: dict[str, str], arguments: dict[str, Any]) -> None:
    """What of encryption the driver does not do itself. Raises BadAddress.

    1. The system's authorities: `sslrootcert=system`, and a server to be verified where no authority is named.
    2. `channel_binding=require` keeps others from standing in between. The driver cannot, so the server's certificate
       and name are verified.
    """
    mode, authority = given.get("sslmode", ""), given.get("sslrootcert", "")
    if mode not in (*WEAK, "disable", "verify-ca", "verify-full"):
        raise BadAddress(
            f"sslmode={_short(mode)} is not one of disable, allow, prefer, require, verify-ca, verify-full"
        )
    bound = given.get("channel_binding") == "require"
    if bound and mode == "disable":
        raise BadAddress(
            "channel_binding=require needs encryption, and sslmode=disable forbids it: leave one of them out"
        )
    if authority == "system" or (bound and mode in WEAK):
        mode = "verify-full"
    verified = mode in ("verify-ca", "verify-full")
    if given.get("sslcert") and mode != "disable":
        # here, where a key without its password is an error and not a question
        _certified(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), given)
    if authority not in ("", "system"):
        file = absolute(Path(authority))
        if not file.is_file():
            raise BadAddress(
                f"sslrootcert={_short(authority, LONGEST_PATH)} is not a file: name the authority's certificate, or `system`"
            )
        kept |= {"sslmode": mode} if mode else {}
    elif verified:
        arguments["ssl"] = _system(mode, given)
        for name in ("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl"):
            kept.pop(name, None)


def _system(mode: str, given: Mapping[str, str]) -> ssl.SSLContext:
    """Verified by the system's authorities. Raises BadAddress."""
    context = ssl.create_default_context()
    context.check_hostname = mode == "verify-full"
    if given.get("sslcert"):
        _certified(context, given)
    return context


def _certified(context: ssl.SSLContext, given: Mapping[str, str]) -> None:
    """Who we are, where the server asks for a certificate. Raises BadAddress."""
    names = {name: given.get(name, "") for name in ("sslcert", "sslkey")}
    for name, file in names.items():
        if file and not os.access(absolute(Path(file)), os.R_OK):
            raise BadAddress(
                f"{name}={_short(file, LONGEST_PATH)} is not a file that we can read: name the PEM file, and let {_reader()} read it"
            )
    try:
        context.load_cert_chain(names["sslcert"], names["sslkey"] or None, lambda: given.get("sslpassword", ""))
    except (OSError, ssl.SSLError) as error:  # an encrypted key opened with no password, or a wrong one, is one too
        raise BadAddress(
            f"sslcert={_short(names['sslcert'], LONGEST_PATH)} and sslkey={_short(names['sslkey'] or '(none)', LONGEST_PATH)} cannot be used{_why(error)}: both are PEM "
            "files, and a key with a password needs sslpassword"
        ) from None


def _reader() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"the user {os.geteuid()}"


def _why(error: Exception) -> str:
    """OpenSSL has words for one case alone."""
    return ", for they do not belong together" if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH" else ""


def _own_name() -> str:
    """Whom Postgres is asked as where the address names nobody: us, as libpq has it. Raises BadAddress."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise BadAddress(
            "it names no user, and ours has no name: postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        ) from None


def _short(text: str, most: int = 60) -> str:
    """For an error; nothing of what may be another address, pasted behind the first, with a password in it."""
    if "@" in text:
        return "…"
    return text if len(text) <= most else f"{text[:most]}…"
