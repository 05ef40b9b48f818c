"""One way to connect to Postgres, for pools, leases, listeners, migrations and checks. Steps 6 and 12.

Whatever the operator's address is (`postgres_address.py`), each session speaks to our schema alone, under limits of its
own. They are set by a statement, not when connecting: PgBouncer refuses settings it does not know there.

The failures to survive: another program in the same database, and a pooler that gives a session's statements to
whichever connection is free. We have a schema of our own. Behind such a pooler locks, LISTEN and settings would be
somebody else's, so it is refused with the reason (`transactions_are_pooled`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import asyncpg

from pilotlight.database.errors import Unfit, Unreachable
from pilotlight.database.remedies import remedy
from pilotlight.postgres_address import BadAddress, understood, without_password

SCHEMA = "pilotlight"
CONNECT_SECONDS = 10.0
OLDEST = 130000  # server_version_num
REFUSALS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    ValueError,
)
LOOKS = 4  # at whose connection is whose; a pooler that takes turns shows itself in the second


class Session(asyncpg.Connection):
    """A connection that finds its settings again after the pool has reset it."""

    settings: str = ""

    def get_reset_query(self) -> str:
        return f"{super().get_reset_query()}\n{self.settings}"


async def connect(
    url: str, *, application: str, timeout: float = CONNECT_SECONDS, limits: Mapping[str, str] | None = None
) -> Session:
    """A connection of one's own. `limits`: settings of its session. Raises Unfit, and what REFUSALS lists."""
    driver = arguments(url, application=application, timeout=timeout)
    connection: Session = await asyncpg.connect(**driver)
    try:
        await settle(limits or {})(connection)
    except BaseException:
        connection.terminate()
        raise
    return connection


def arguments(url: str, *, application: str, timeout: float = CONNECT_SECONDS) -> dict[str, Any]:
    """For the driver. Raises Unfit where the address is none that we can use."""
    try:
        address = understood(url)
    except BadAddress as error:
        raise Unfit(f"DATABASE_URL cannot be used: {error}") from None
    named = {"application_name": f"pilotlight {application}"}
    return {
        "dsn": address.dsn,
        "timeout": timeout,
        "connection_class": Session,
        "server_settings": named,
    } | address.arguments


def settle(limits: Mapping[str, str]) -> Callable[[Any], Any]:
    """Gives a new connection its settings, now and after each reset."""
    given = {"search_path": SCHEMA, **limits}
    statement = "".join(f"SET {name} TO '{value}';" for name, value in given.items())

    async def init(connection: Any) -> None:
        connection.settings = statement
        await connection.execute(statement)

    return init


def unreachable(url: str, error: Exception) -> Unreachable:
    """The error to raise; it names the place, never the password."""
    place, password = "DATABASE_URL", True
    with contextlib.suppress(BadAddress):
        address = understood(url)
        place, password = address.place, address.password
    reason = f"{type(error).__name__}: {without_password(str(error))}"
    return Unreachable(f"no Postgres to work with at {place} ({reason}): {remedy(error, password=password)}")


async def check(url: str, connection: Session) -> None:
    """Can we work with the Postgres at the other end? Raises Unfit, and what REFUSALS lists.

    1. Old enough, neither a copy that takes no rows nor one that takes none for now.
    2. A session keeps its connection.
    """
    # By the simple protocol: a pooler may give each message of the other one to another server.
    version = int(connection.get_server_version().major) * 10000
    if version < OLDEST:
        raise Unfit(f"Postgres {version // 10000} is too old: {OLDEST // 10000} or newer is needed")
    ours: list[int] = []
    theirs: list[int] = []
    other: Session | None = None
    try:
        other = await connect(url, application="look")
        for _ in range(LOOKS):
            ours.append(await _backend(connection))
            theirs.append(await _backend(other))
        if await connection.fetchval("SELECT pg_is_in_recovery()"):
            raise Unfit("this Postgres is a copy that takes no rows: name the primary in DATABASE_URL")
        if await connection.fetchval("SHOW transaction_read_only") == "on":
            raise Unfit(READ_ONLY)
    except (
        asyncpg.InvalidSQLStatementNameError,
        asyncpg.DuplicatePreparedStatementError,
        asyncpg.ProtocolViolationError,
    ) as error:
        raise Unfit(POOLED) from error
    finally:
        if other is not None:
            other.terminate()
    if transactions_are_pooled(ours, theirs):
        raise Unfit(POOLED)


POOLED = (
    "a pooler in transaction mode is in between (PgBouncer with pool_mode = transaction, or a provider's `pooler` address). Leases, LISTEN and "
    "settings need sessions that keep their connection: use session mode, or the provider's direct address"
)

READ_ONLY = (
    "this Postgres takes no rows now: default_transaction_read_only is on, for this user, database or server. Turn it off; providers turn it on "
    "where a database has used up its room"
)


async def _backend(connection: Session) -> int:
    return int(await connection.fetchval("SELECT pg_backend_pid()"))


def transactions_are_pooled(ours: Sequence[int], theirs: Sequence[int]) -> bool:
    """Two sessions that are open at once, and the server processes that answered them: is one of them whoever is free?
    Pure.
    """
    return len(set(ours)) > 1 or len(set(theirs)) > 1 or bool(set(ours) & set(theirs))
