"""The embedded Postgres starts, survives every kind of death, leaves nothing behind and changes no mode; the tables
come up once.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from activator.store import housekeeping
from pilotlight import keys
from pilotlight.cli.backup import backup, restore
from pilotlight.database import embedded
from pilotlight.database.account import server_account
from pilotlight.database.binaries import PACKAGE, program_folder
from pilotlight.database.embedded import EmbeddedPostgres
from pilotlight.database.errors import EmbeddedError, SchemaError, Unfit, Unreachable
from pilotlight.database.leftovers import _processes_in
from pilotlight.database.migrate import MIGRATIONS, migrate, newest
from pilotlight.database.pool import connect_pool, dsn
from pilotlight.settings import Paths, Settings, load

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def new_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))
    folder.chmod(0o711)
    return folder


@pytest.fixture
def folder() -> Iterator[Path]:
    made = new_folder()
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def paths() -> Iterator[Paths]:
    """One database for most tests: each starts and stops a server of its own on it."""
    made = new_folder()
    yield Paths(made / "with space")
    shutil.rmtree(made)


@pytest.fixture
async def server(paths: Paths) -> AsyncIterator[EmbeddedPostgres]:
    started = await embedded.start(paths)
    yield started
    await started.stop()


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Look until it is so: for what other processes do."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def shared_memory_of(pid: int) -> list[str]:
    """System V segments that `pid` made."""
    return [line for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:] if line.split()[4] == str(pid)]


async def fetch(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_start_and_stop_leave_nothing(paths: Paths) -> None:
    server = await embedded.start(paths)
    assert await fetch(server.dsn, "SELECT version()")
    processes = _processes_in(paths.postgres / "data")
    assert server.pid in processes
    assert shared_memory_of(server.pid)  # Postgres' own interlock
    await server.stop()
    await server.stop()
    await server.ended()
    assert not any(map(alive, processes))
    assert not list(paths.postgres.glob(".s.PGSQL*"))
    assert not list(paths.state.glob("postgres-new-*"))
    assert not shared_memory_of(server.pid)


async def test_it_is_durable_private_and_off_the_network(server: EmbeddedPostgres, paths: Paths) -> None:
    for name, value in {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "listen_addresses": "",
        "TimeZone": "UTC",
    }.items():
        assert await fetch(server.dsn, f"SELECT current_setting('{name}')") == value
    assert stat.S_IMODE(paths.postgres.stat().st_mode) == 0o700
    for name in ("database.password", "database.dsn"):
        assert stat.S_IMODE((paths.secrets / name).stat().st_mode) == 0o600
    password = (paths.secrets / "database.password").read_text()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(server.dsn.replace(password, "guessed"))
    # nothing in /dev/shm
    assert await fetch(server.dsn, "SELECT current_setting('dynamic_shared_memory_type')") == "mmap"
    command_line = Path(f"/proc/{server.pid}/cmdline").read_bytes()
    assert password.encode() not in command_line


@as_root
async def test_root_starts_it_unprivileged_and_changes_no_mode(folder: Path) -> None:
    parents = [Path("/tmp"), folder]
    before = [parent.stat().st_mode for parent in parents]
    paths = Paths(folder / "a" / "state")
    server = await embedded.start(paths)
    try:
        status = Path(f"/proc/{server.pid}/status").read_text()
        uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
        groups = next(line for line in status.splitlines() if line.startswith("Groups:")).split()[1:]
        assert "0" not in uids + groups
        assert paths.postgres.stat().st_uid == int(uids[0])
    finally:
        await server.stop()
    assert [parent.stat().st_mode for parent in parents] == before
    assert paths.secrets.stat().st_uid == 0


@as_root
async def test_a_closed_folder_is_named_and_stays_closed(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedError, match=rf"cannot enter {closed}: .*--state.*DATABASE_URL"):
        await embedded.start(Paths(closed / "state"))
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root
async def test_programs_that_are_closed_to_it_are_copied_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = Paths(folder / "state")
    account = server_account(paths.postgres)
    installed = program_folder(paths, account).parents[2]
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    for name in (PACKAGE, f"{PACKAGE}.libs"):
        shutil.copytree(installed / name, closed / name, ignore=shutil.ignore_patterns("pginstall", "include"))
    monkeypatch.syspath_prepend(str(closed))
    server = await embedded.start(paths)
    try:
        program = Path(f"/proc/{server.pid}/exe").readlink()
    finally:
        await server.stop()
    assert program.is_relative_to(paths.state)
    copied = program.stat().st_ino
    assert program_folder(paths, account) == program.parent
    assert program.stat().st_ino == copied
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


async def test_a_second_start_is_refused_while_the_first_runs(server: EmbeddedPostgres, paths: Paths) -> None:
    with pytest.raises(EmbeddedError, match="another process runs"):
        await embedded.start(paths)
    assert await fetch(server.dsn, "SELECT 1") == 1


async def test_kill_of_the_server_loses_nothing_committed(paths: Paths) -> None:
    server = await embedded.start(paths)
    await fetch(server.dsn, "CREATE TABLE kept AS SELECT 42 AS number")
    os.kill(server.pid, signal.SIGKILL)
    await server.ended()
    await server.stop()
    again = await embedded.start(paths)
    try:
        assert await fetch(again.dsn, "SELECT number FROM kept") == 42
        await fetch(again.dsn, "DROP TABLE kept")
    finally:
        await again.stop()


async def test_a_backend_orphaned_in_the_middle_of_work_is_ended(paths: Paths) -> None:
    server = await embedded.start(paths)
    busy = asyncio.ensure_future(fetch(server.dsn, "SELECT count(*) FROM generate_series(1, 1000000000)"))
    watcher = await asyncpg.connect(server.dsn)
    while not await watcher.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT count(*) FROM generate%'"
    ):
        await asyncio.sleep(0.005)
    orphans = _processes_in(paths.postgres / "data") - {server.pid}
    os.kill(server.pid, signal.SIGKILL)
    await server.ended()
    await server.stop()
    again = await embedded.start(paths)
    try:
        assert not any(map(alive, orphans))
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await busy
    finally:
        watcher.terminate()
        await again.stop()


STARTER = """
import asyncio, sys
from pathlib import Path
from pilotlight.database import embedded
from pilotlight.settings import Paths

async def main():
    server = await embedded.start(Paths(Path(sys.argv[1])))
    print(server.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def starter(paths: Paths) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", STARTER, paths.state], stdout=subprocess.PIPE, text=True)


async def test_it_ends_when_its_starter_is_killed(paths: Paths) -> None:
    with starter(paths) as up:
        assert up.stdout
        pid = int(up.stdout.readline())
        assert alive(pid)
        up.kill()
    until(lambda: not alive(pid))
    server = await embedded.start(paths)
    await server.stop()


async def test_it_starts_again_at_once_when_its_starter_is_killed(paths: Paths) -> None:
    with starter(paths) as up:
        assert up.stdout
        up.stdout.readline()
        up.kill()
    server = await embedded.start(paths)
    assert await fetch(server.dsn, "SELECT 1") == 1
    await server.stop()


async def test_a_server_left_behind_is_ended_first(paths: Paths) -> None:
    await (await embedded.start(paths)).stop()
    account = server_account(paths.postgres)
    command: list[str | Path] = [
        program_folder(paths, account) / "postgres",
        "-D",
        paths.postgres / "data",
        "-c",
        "listen_addresses=",
        "-k",
        paths.postgres,
    ]
    with (paths.logs / "left-behind.log").open("ab") as log:
        left = account.start(command, log)
    until((paths.postgres / ".s.PGSQL.5432").exists)
    server = await embedded.start(paths)
    try:
        assert left.wait() == 0
        assert await fetch(server.dsn, "SELECT 1") == 1
    finally:
        await server.stop()


async def test_a_stale_pid_file_that_names_a_stranger_does_not_hinder(paths: Paths) -> None:
    await (await embedded.start(paths)).stop()
    for name in ("data/postmaster.pid", ".s.PGSQL.5432.lock"):
        (paths.postgres / name).write_text(
            f"{os.getpid()}\n{paths.postgres / 'data'}\n1\n5432\n{paths.postgres}\n\n 1 1\nready\n"
        )
        os.chown(paths.postgres / name, paths.postgres.stat().st_uid, -1)
    server = await embedded.start(paths)
    await server.stop()


async def test_kill_in_the_middle_of_the_first_start_is_survived(folder: Path) -> None:
    for attempt in range(5):  # on a busy machine we may look when it is over: then another one is killed
        paths = Paths(folder / f"state{attempt}")
        with starter(paths) as up:
            until(lambda: list(paths.state.glob("postgres-new-*/data/base")) or (paths.postgres / "data").exists())  # noqa: B023
            up.kill()
        if not (paths.postgres / "data").exists():
            break
    assert not (paths.postgres / "data").exists()
    server = await embedded.start(paths)
    try:
        assert await fetch(server.dsn, "SELECT 1") == 1
    finally:
        await server.stop()
    assert not [path for path in paths.state.glob("postgres-new-*") if any(path.iterdir())]


async def test_a_path_too_long_for_a_socket_is_refused(folder: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"107 bytes.*--state"):
        await embedded.start(Paths(folder / ("x" * 100)))


async def test_another_major_version_is_refused(paths: Paths) -> None:
    await (await embedded.start(paths)).stop()
    version = paths.postgres / "data" / "PG_VERSION"
    version.write_text("15\n")
    try:
        with pytest.raises(EmbeddedError, match="made by Postgres 15"):
            await embedded.start(paths)
    finally:
        version.write_text("18\n")


async def test_a_server_that_cannot_start_says_why_and_is_gone(paths: Paths) -> None:
    await (await embedded.start(paths)).stop()
    settings = paths.postgres / "data" / "postgresql.auto.conf"
    settings.write_text("nonsense = 1\n")
    try:
        with pytest.raises(EmbeddedError, match="nonsense"):
            await embedded.start(paths)
    finally:
        settings.write_text("")
    assert not _processes_in(paths.postgres / "data")
    await (await embedded.start(paths)).stop()


WITHOUT_ORG = """
SELECT array_agg(t.tablename::text) FROM pg_tables t
WHERE schemaname = 'pilotlight' AND tablename <> 'alembic_version' AND NOT EXISTS (
    SELECT FROM information_schema.columns c WHERE c.table_name = t.tablename AND c.column_name = 'org_id')
"""


async def test_tables_come_up_once_also_when_two_ask_at_once(server: EmbeddedPostgres) -> None:
    await asyncio.gather(migrate(server.dsn), migrate(server.dsn))
    assert await fetch(server.dsn, "SELECT version_num FROM alembic_version") == newest()
    assert await fetch(server.dsn, WITHOUT_ORG) is None
    await migrate(server.dsn)
    assert "alembic" not in sys.modules  # a child did the work


async def test_a_database_of_a_newer_version_is_refused(server: EmbeddedPostgres) -> None:
    await migrate(server.dsn)
    await fetch(server.dsn, "UPDATE alembic_version SET version_num = '9999'")
    try:
        with pytest.raises(SchemaError, match="9999"):
            await migrate(server.dsn)
    finally:
        await fetch(server.dsn, f"UPDATE alembic_version SET version_num = '{newest()}'")


async def test_a_migration_that_fails_changes_nothing(server: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(server.dsn)
    await connection.execute("DROP DATABASE IF EXISTS broken")
    await connection.execute("CREATE DATABASE broken")
    await connection.close()
    broken = server.dsn.replace("/postgres?", "/broken?")
    await fetch(broken, "CREATE SCHEMA pilotlight")
    await fetch(broken, "CREATE TABLE pilotlight.usage ()")  # in the way of 0001_first.sql
    with pytest.raises(SchemaError, match='relation "usage" already exists'):
        await migrate(broken)
    assert await fetch(broken, "SELECT array_agg(tablename::text) FROM pg_tables WHERE schemaname = 'pilotlight'") == [
        "usage"
    ]


async def test_what_is_old_and_settled_is_deleted_and_nothing_else(server: EmbeddedPostgres) -> None:
    await migrate(server.dsn)
    connection = await asyncpg.connect(server.dsn)
    await connection.execute("""
        INSERT INTO engine_journal (request_id, org_id, replica_id, input_tokens, cached_tokens, output_tokens, finish, stored_at)
        SELECT kind || n, 'default', 'r', 1, 0, 1, 'stop', now() - make_interval(days => CASE kind WHEN 'new' THEN 29 ELSE 31 END)
        FROM unnest(ARRAY['old', 'new', 'unsettled']) kind, generate_series(1, 5) n;
        INSERT INTO usage (event_id, org_id, endpoint_id, key_id, path, streamed, status, finish, start, admitted_at, hold_ms, total_ms,
                           input_tokens, cached_tokens, output_tokens, count_source, price_version, cost)
        SELECT request_id, 'default', 'e', 'k', '/', false, 200, 'complete', 'warm', now(), 0, 1, 1, 0, 1, 'journal', 1, 0
        FROM engine_journal WHERE request_id NOT LIKE 'unsettled%';
        INSERT INTO endpoints (endpoint_id, org_id, name) VALUES ('e', 'default', 'e');
        INSERT INTO revisions (revision_id, org_id, endpoint_id, number, digest, task, min_replicas, max_replicas, idle_timeout_seconds, slots)
        VALUES ('v', 'default', 'e', 1, 'd', 'generate', 0, 1, 1, 1);
        INSERT INTO events (org_id, endpoint_id, revision_id, replica_id, node_id, kind, text, at)
        SELECT 'default', 'e', 'v', 'r', 'n', 'k', day::text, now() - make_interval(days => day) FROM generate_series(25, 34) day;
        INSERT INTO replicas (replica_id, org_id, revision_id, node_id, state, started_at, stopped_at)
        SELECT state || day, 'default', 'v', 'n', state, now() - interval '60 days', now() - make_interval(days => day)
        FROM unnest(ARRAY['stopped', 'ready']) state, generate_series(28, 31) day;
        INSERT INTO journals (replica_id, org_id, complete_at)
        SELECT 'stopped' || day, 'default', now() - make_interval(days => day) FROM generate_series(28, 31) day;
        INSERT INTO audit (act_id, org_id, at, act, object, who, origin, outcome, recorded_at)
        SELECT 'act' || day, 'default', now() - make_interval(days => day), 'a', 'o', 'w', 'h', 'done', now() - make_interval(days => day)
        FROM unnest(ARRAY[80, 95, 100, 105]) day;
    """)
    assert await housekeeping.tidy(connection, keep_days=29.5, audit_days=99.5, batch=2) == {
        "journal": 5,
        "journals": 2,
        "events": 5,
        "audit": 2,
        "replicas": 2,
    }
    left = await connection.fetchval("SELECT array_agg(request_id ORDER BY request_id) FROM engine_journal")
    assert left == [f"{kind}{n}" for kind in ("new", "unsettled") for n in range(1, 6)]
    assert await connection.fetchval("SELECT array_agg(text ORDER BY text) FROM events") == [
        "25",
        "26",
        "27",
        "28",
        "29",
    ]
    left = await connection.fetchval("SELECT array_agg(replica_id ORDER BY replica_id) FROM replicas")
    assert left == ["ready28", "ready29", "ready30", "ready31", "stopped28", "stopped29"]
    assert await connection.fetchval("SELECT array_agg(replica_id ORDER BY replica_id) FROM journals") == [
        "stopped28",
        "stopped29",
    ]
    assert await connection.fetchval("SELECT count(*) FROM usage") == 10
    assert await connection.fetchval("SELECT array_agg(act_id ORDER BY act_id) FROM audit") == ["act80", "act95"]
    assert not any((await housekeeping.tidy(connection, keep_days=29.5, audit_days=99.5)).values())
    await connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET outcome = 'done'",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "UPDATE audit SET recorded_at = '2000-01-01'",
    ],
)
async def test_what_operators_did_is_not_changed_afterwards(server: EmbeddedPostgres, statement: str) -> None:
    await migrate(server.dsn)
    connection = await asyncpg.connect(server.dsn)
    insert = "INSERT INTO audit (act_id, org_id, at, act, object, who, origin, outcome) VALUES ($1, 'default', now(), 'a', 'o', 'w', 'h', 'refused')"
    act_id = f"act{statement}"
    await connection.execute(insert, act_id)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="never changed"):
        await connection.execute(statement)
    assert await connection.fetchval("SELECT outcome FROM audit WHERE act_id = $1", act_id) == "refused"
    await connection.close()


def test_revisions_are_numbered_by_file() -> None:
    for file in (MIGRATIONS / "versions").glob("[0-9]*.py"):
        assert f'revision = "{file.name.partition("_")[0]}"' in file.read_text()


async def test_pool(server: EmbeddedPostgres, paths: Paths) -> None:
    settings = load(state_dir=paths.state)
    pool = await connect_pool(dsn(settings), application="test")
    value = {"a": [1, None, "ü"]}
    assert await pool.fetchval("SELECT $1::jsonb", value) == value
    assert await pool.fetchval("SELECT current_setting('application_name')") == "pilotlight test"
    assert await pool.fetchval("SELECT current_setting('statement_timeout')") == "30s"
    await pool.close()


async def test_a_server_that_is_away_is_one_clear_error(paths: Paths) -> None:
    await (await embedded.start(paths)).stop()
    password = (paths.secrets / "database.password").read_text()
    for place in (dsn(load(state_dir=paths.state)), f"postgresql://a:{password}@127.0.0.1:1/x"):
        with pytest.raises(Unreachable, match="pilotlight up") as caught:
            await connect_pool(place, application="test")
        assert password not in str(caught.value)
    with pytest.raises(Unfit, match=r"DATABASE_URL.*begins with postgresql://") as refused:  # no use trying again
        await connect_pool(f"a:{password}@nonsense", application="test")
    assert password not in str(refused.value)


def test_no_database_known(folder: Path) -> None:
    with pytest.raises(Unreachable, match="DATABASE_URL"):
        dsn(load(state_dir=folder, database_url=""))


def test_a_backup_made_while_nothing_runs_has_every_row_and_a_restore_gives_them_back(folder: Path) -> None:
    """Both start a server of their own; what is restored is brought up to date by the next `up`, as any database is."""
    old, new = load(state_dir=folder / "old"), load(state_dir=folder / "new")

    async def made(given: Settings, statement: str) -> list[asyncpg.Record]:
        started = await embedded.start(given.paths)
        try:
            await migrate(started.dsn)
            connection = await asyncpg.connect(started.dsn)
            rows: list[asyncpg.Record] = await connection.fetch(statement)
            await connection.close()
            return rows
        finally:
            await started.stop()

    asyncio.run(
        made(old, "INSERT INTO pilotlight.orgs (org_id, name) VALUES ('kept', 'it''s \u00fc') RETURNING org_id")
    )
    keys.ensure_pepper(old.paths)
    backup.back_up(old, folder / "b.tar", models=False, as_json=True)
    restore.restore(new, folder / "b.tar", as_json=True)
    (row,) = asyncio.run(made(new, "SELECT name FROM pilotlight.orgs WHERE org_id = 'kept'"))
    assert row["name"] == "it's \u00fc" and not list(new.paths.state.glob("*.dump"))
