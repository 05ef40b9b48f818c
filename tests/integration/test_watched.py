"""The processes of `up`, each stopped in turn, without an engine: found by the watchdog, killed, and started again by
what starts the dead.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pilotlight import keys, tls
from pilotlight.cli.up.postgres import Postgres
from pilotlight.cli.up.supervise import Child
from pilotlight.database.probe import answers
from pilotlight.ports import free_port
from pilotlight.settings import Settings, load
from pilotlight.watchdog import Watchdog

SILENT_SECONDS = 5.0  # one that gets no turn for so long on a busy machine is killed, too


@pytest.fixture
def settings() -> Iterator[Settings]:
    folder = Path(tempfile.mkdtemp(prefix="pl-watched-", dir="/tmp"))
    folder.chmod(0o711)
    port = {"port": free_port(), "metrics_port": free_port(8), "workers": 2, "drain_seconds": 1}
    made = load(
        state_dir=folder,
        router=port,
        watch={"silent_seconds": SILENT_SECONDS},
        database_url="postgresql:///away?host=/nowhere",
    )
    made.paths.make()
    keys.ensure_pepper(made.paths)
    keys.ensure_admin_key(made.paths)
    tls.ensure_apart(made.paths, tls.names(made.router))
    yield made
    shutil.rmtree(folder, ignore_errors=True)


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """For what can only be looked at."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("module", ["router.ledger", "router.admin", "activator"])
async def test_a_process_that_is_stopped(settings: Settings, module: str) -> None:
    children: list[Child] = []
    told: list[int] = []
    watchdog = Watchdog(
        settings.paths.run / "w.sock",
        running=lambda: [child.pid for child in children],
        silent_seconds=SILENT_SECONDS,
        on_silent=told.append,
    )
    watching = asyncio.create_task(watchdog.run())
    children.append(Child(module, settings, notify=watchdog.environ))
    stopped = children[0].pid
    await until(lambda: watchdog._said[stopped].spoken if stopped in watchdog._said else False)
    os.kill(stopped, signal.SIGSTOP)
    await until(lambda: children[0].pid not in (0, stopped))
    await until(lambda: watchdog._said[children[0].pid].spoken if children[0].pid in watchdog._said else False)
    assert told[0] == stopped, "its successor beats"
    await children[0].stop()
    watching.cancel()


async def test_a_worker_of_the_router_and_its_parent(settings: Settings) -> None:
    children: list[Child] = []
    told: list[int] = []
    watchdog = Watchdog(
        settings.paths.run / "w.sock",
        running=lambda: [child.pid for child in children],
        silent_seconds=SILENT_SECONDS,
        on_silent=told.append,
    )
    watching = asyncio.create_task(watchdog.run())
    children.append(Child("router", settings, notify=watchdog.environ))
    parent, log = children[0].pid, settings.paths.logs / "router.log"

    def workers(of: int) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{of}/task/{of}/children").read_text().split()]

    await until(lambda: len(workers(parent)) == 2 and answering(settings))
    first = workers(parent)
    os.kill(first[0], signal.SIGSTOP)
    await until(
        lambda: "worker_hung" in log.read_text() and len(workers(parent)) == 2 and first[0] not in workers(parent), 30
    )
    assert told == [] and first[1] in workers(parent), "the others are let be"
    os.kill(parent, signal.SIGSTOP)
    await until(lambda: children[0].pid not in (0, parent))
    assert told == [parent]
    await until(lambda: not Path(f"/proc/{first[1]}").exists(), 20)  # a worker ends with its parent
    await children[0].stop()
    watching.cancel()


def answering(settings: Settings) -> bool:
    """Both workers: they have said that they turn before they serve their metrics."""
    sockets, first = Path("/proc/net/tcp").read_text(), settings.router.metrics_port
    return all(f":{port:04X} 00000000:0000 0A" in sockets for port in (first, first + 1))


async def test_a_postgres_that_is_stopped(settings: Settings) -> None:
    said: list[str] = []
    kept = Postgres(settings.paths, said.append)
    await kept.start()
    stopped = kept.pid
    tasks = [asyncio.create_task(kept.keep()), asyncio.create_task(kept.watch(SILENT_SECONDS))]
    os.kill(stopped, signal.SIGSTOP)
    await until(lambda: kept.pid not in (0, stopped))
    assert await answers(settings.paths.postgres / ".s.PGSQL.5432", 5.0)
    assert "has not answered for 5 s" in said[0]
    for task in tasks:
        task.cancel()
    await kept.stop()
