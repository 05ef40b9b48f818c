"""What to do where Postgres does not let us in: one sentence for each way it can be, from the driver's error. Pure.

The failure to survive is a true and useless answer: "is it running?" of a server that runs. It may only not accept a
password, show a certificate that we do not know, or have no connection left.
"""

from __future__ import annotations

import socket
import ssl

import asyncpg

AWAY = "is it running (`pilotlight up`), is DATABASE_URL right?"
NOT_KNOWN = (
    "an unknown authority signed its certificate: name that authority's file, which its provider gives, in sslrootcert"
)
OTHER_NAME = "its certificate is for another name: use the name it is for in DATABASE_URL, or sslmode=verify-ca, which looks at the authority only"


def remedy(error: BaseException, *, password: bool = True) -> str:
    """`password`: one was given."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_certificate(error)
    if isinstance(error, ssl.SSLError):
        return "its TLS and ours have no version in common: look at ssl_min_protocol_version, and at the files in sslrootcert and sslcrl"
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return _of_access(error, password=password)
    if isinstance(error, asyncpg.TooManyConnectionsError):
        return "it has no connection left, and some 20 are needed: raise max_connections or the user's limit, end others, or use a pooler in session mode"
    if isinstance(error, asyncpg.CannotConnectNowError):
        return "it starts, stops or recovers now: try again soon"
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return "make the database (CREATE DATABASE), or name another at the end of DATABASE_URL"
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return "grant the user what it says, or name another user in DATABASE_URL"
    if isinstance(error, socket.gaierror):
        return "no such name is known here: is the host in DATABASE_URL right, does DNS work?"
    if isinstance(error, ConnectionError) and "SSL upgrade" in str(error):
        return (
            "it does no TLS: turn it on there (ssl = on), or, where nobody can listen in between, say sslmode=disable"
        )
    if isinstance(error, ValueError | asyncpg.InterfaceError):
        return "correct that part of DATABASE_URL"
    return AWAY


def _of_certificate(error: ssl.SSLCertVerificationError) -> str:
    said = str(error).lower()
    if "mismatch" in said:
        return OTHER_NAME
    if "expired" in said or "not yet valid" in said:
        return "its certificate is not valid today: renew it there, or look at this machine's clock"
    if "revoked" in said or "crl" in said:
        return "the list in sslcrl says so, or is out of date: fetch it anew"
    return NOT_KNOWN


def _of_access(error: asyncpg.InvalidAuthorizationSpecificationError, *, password: bool) -> str:
    """Who we are: `pg_hba.conf` of the server decides."""
    said = str(error)
    if isinstance(error, asyncpg.InvalidPasswordError):
        return (
            "look at user and password in DATABASE_URL"
            if password
            else "give a password in DATABASE_URL, in PGPASSWORD or in a file named by PGPASSFILE"
        )
    if "client certificate" in said:
        return "give it a certificate of yours: sslcert and sslkey in DATABASE_URL"
    if "no encryption" in said:
        return "it wants TLS from this user: sslmode=require (or verify-full) in DATABASE_URL"
    if "SSL encryption" in said or "SSL on" in said:
        return "it takes this user by plain connections only: sslmode=disable, or a line for hostssl in its pg_hba.conf"
    return "add a line for this user, database and address to its pg_hba.conf"
