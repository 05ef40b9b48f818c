"""What a statement runs on (a connection of the pool, or one of its own), and how it can fail."""

from __future__ import annotations

from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

Connection: TypeAlias = "asyncpg.Connection[Any] | PoolConnectionProxy[Any]"
Pool: TypeAlias = "asyncpg.Pool[Any]"

# What asyncpg raises when Postgres is away, busy, or refuses: every error of its own, and the network's (TimeoutError
# is an OSError).
FAILED = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.PostgresError,
    asyncpg.InternalClientError,
)  # the last: a connection cut while in use

# Those of them that are a verdict on what was asked, and will be the same the next time.
REFUSED = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.SyntaxOrAccessError,
    ValueError,  # asyncpg's own, before it was sent
)
