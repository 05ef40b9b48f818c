"""Runs a migration's `.sql` file, of as many statements as it likes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op


def run_sql(name: str) -> None:
    """Execute `migrations/<name>` in the migration's transaction. Raises asyncpg's errors."""
    sql = (Path(__file__).parent / name).read_text()
    # Around SQLAlchemy: asyncpg takes several statements at once only without parameters, and `:` and `%` stay as they
    # are.
    adapted: Any = op.get_bind().connection.dbapi_connection
    adapted.run_async(lambda connection: connection.execute(sql))
