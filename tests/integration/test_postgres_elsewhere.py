"""A Postgres of the operator's: beside other programs, with few rights, and behind a pooler; real servers, and
PgBouncer where it is installed.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from pilotlight.database import embedded
from pilotlight.database.account import server_account
from pilotlight.database.connect import connect
from pilotlight.database.errors import SchemaError, Unfit
from pilotlight.database.migrate import MIGRATIONS, migrate, newest
from pilotlight.database.pool import connect_pool
from pilotlight.settings import Paths

NUMBERS = itertools.count()
PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Paths, str]]:
    """One for all tests, and its address."""
    made = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))
    made.chmod(0o711)
    started = asyncio.run(embedded.start(Paths(made)))
    yield Paths(made), started.dsn
    asyncio.run(started.stop())
    shutil.rmtree(made)


@pytest.fixture
async def database(server: tuple[Paths, str]) -> str:
    """The address of a new, empty database with a name of its own."""
    name = f"d{next(NUMBERS)}"
    await run(server[1], f"CREATE DATABASE {name}")
    return server[1].replace("/postgres?", f"/{name}?")


async def run(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def tables(url: str, schema: str) -> set[str]:
    connection = await asyncpg.connect(url)
    found = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", schema)
    await connection.close()
    return {row["tablename"] for row in found}


async def test_another_programs_tables_are_left_alone(database: str) -> None:
    await run(
        database,
        "CREATE TABLE public.alembic_version (version_num varchar(32)); INSERT INTO public.alembic_version VALUES ('ae1027a6acf')",
        "CREATE TABLE public.usage (theirs int)",
    )
    await migrate(database)
    await migrate(database)
    assert await tables(database, "public") == {"alembic_version", "usage"}
    assert {"alembic_version", "usage", "endpoints"} <= await tables(database, "pilotlight")


async def test_what_an_older_release_made_moves_in_with_its_rows(database: str) -> None:
    last = "0009"
    await run(database, "SET search_path TO public; CREATE TABLE public.theirs (a int)")
    connection = await asyncpg.connect(database)
    await connection.execute("SET search_path TO public")
    for step in sorted(MIGRATIONS.glob("*.sql")):
        if step.name[:4] <= last:
            await connection.execute(step.read_text())
    await connection.execute(
        "CREATE TABLE alembic_version (version_num varchar(32)); INSERT INTO alembic_version VALUES ('" + last + "')"
    )
    await connection.execute("INSERT INTO endpoints (endpoint_id, org_id, name) VALUES ('e1', 'default', 'kept')")
    await connection.close()
    await migrate(database)
    assert await tables(database, "public") == {"theirs"}
    pool = await connect_pool(database, application="test")
    assert await pool.fetchval("SELECT name FROM endpoints") == "kept"
    assert await pool.fetchval("SELECT max(version_num) FROM alembic_version") == newest()
    await pool.close()


async def test_a_user_who_may_make_no_schema_is_told_what_to_grant(database: str) -> None:
    await run(database, "CREATE ROLE weak LOGIN PASSWORD 'w'")
    weak = f"postgresql://weak:w@{database.partition('@')[2]}"
    with pytest.raises(SchemaError, match=r'CREATE SCHEMA pilotlight AUTHORIZATION "weak"') as caught:
        await migrate(weak)
    assert "Traceback" not in str(caught.value) and "\n" not in str(caught.value)
    await run(database, 'CREATE SCHEMA pilotlight AUTHORIZATION "weak"')
    await migrate(weak)


async def test_one_that_takes_no_rows_is_told_so(database: str) -> None:
    await migrate(database)
    await run(
        database,
        f"ALTER DATABASE {database.partition('?')[0].rpartition('/')[2]} SET default_transaction_read_only = on",
    )
    with pytest.raises(Unfit, match=r"default_transaction_read_only.*used up its room"):
        await migrate(database)


async def test_a_session_finds_its_schema_again_after_each_use(database: str) -> None:
    await migrate(database)
    pool = await connect_pool(database, application="test", largest=1)
    for _ in range(3):
        async with pool.acquire() as connection:
            assert await connection.fetchval("SHOW search_path") == "pilotlight"
            assert await connection.fetchval("SHOW statement_timeout") == "30s"
            await connection.execute("SET search_path TO nowhere")
    await pool.close()


@contextmanager
def bouncer(paths: Paths, database: str, mode: str) -> Iterator[str]:
    """A PgBouncer in front of it, as the server's account; its address."""
    home = Path(tempfile.mkdtemp(prefix=f"{mode}-", dir=paths.state))
    account = server_account(paths.postgres)
    user, password = database.split("://")[1].partition("@")[0].split(":")
    (home / "users").write_text(f'"{user}" "{password}"\n')
    (home / "ini").write_text(
        f"[databases]\n* = host={paths.postgres} port=5432\n[pgbouncer]\npool_mode = {mode}\nunix_socket_dir = {home}\nlisten_port = 6432\n"
        f"auth_type = scram-sha-256\nauth_file = {home / 'users'}\nlogfile = {home / 'log'}\npidfile =\ndefault_pool_size = 20\n"
    )
    for path in (home, *home.iterdir()):
        shutil.chown(path, account.uid, account.gid)
    assert PGBOUNCER
    process = account.start([PGBOUNCER, "-q", str(home / "ini")], sys.stderr.buffer)
    name = database.partition("?")[0].rpartition("/")[2]
    try:
        yield f"postgresql://{user}:{password}@/{name}?host={home}&port=6432&connect_timeout=5&channel_binding=prefer"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.skipif(PGBOUNCER is None, reason="needs pgbouncer")
@pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
async def test_a_pooler_that_keeps_sessions_works_and_any_other_is_refused(
    server: tuple[Paths, str], database: str, mode: str
) -> None:
    with bouncer(server[0], database, mode) as address:
        async with asyncio.timeout(60):
            while True:
                try:
                    await (await asyncpg.connect(address.partition("&connect")[0])).close()
                    break
                except (OSError, asyncpg.PostgresError):
                    await asyncio.sleep(0.05)  # it offers nothing to wait on
        if mode != "session":
            with pytest.raises(Unfit, match="transaction mode"):
                await migrate(address)
            return
        await migrate(address)
        heard: asyncio.Queue[object] = asyncio.Queue()
        listening = await connect(address, application="test")
        await listening.add_listener("policy", lambda *said: heard.put_nowait(said[-1]))
        pool = await connect_pool(address, application="test")
        assert await pool.fetchval("SELECT count(*) FROM endpoints") == 0
        await pool.execute("SELECT pg_notify('policy', 'x')")
        assert await asyncio.wait_for(heard.get(), 60) == "x"
        await pool.close()
        await listening.close()
