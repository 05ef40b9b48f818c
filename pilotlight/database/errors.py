"""What can go wrong with the database, drawn as a tree.

    DatabaseError
    ├── Unreachable      no Postgres answers there, or it refuses us
    ├── Unfit            it is one that this version cannot work with
    ├── SchemaError      its tables are not ones this version can work with
    └── EmbeddedError    the embedded Postgres cannot be started here

Every text says what to do.
"""

from __future__ import annotations


class DatabaseError(Exception):
    """Base of all."""


class Unreachable(DatabaseError):
    """No Postgres answers there, or it refuses us; trying again later may help."""


class Unfit(DatabaseError):
    """It answers, and cannot serve us: a pooler in between, a copy that takes no rows, too old; trying again does not
    help.
    """


class SchemaError(DatabaseError):
    """The tables are newer than this version, or a migration failed; trying again does not help."""


class EmbeddedError(DatabaseError):
    """The embedded Postgres cannot be started here."""
