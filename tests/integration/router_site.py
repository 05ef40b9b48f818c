"""A state folder with fakes around it, and real router processes on one port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai

from activator.wire import ReplicaRow
from pilotlight.keys import ensure_pepper, hash_key, mint
from pilotlight.ports import free_port
from pilotlight.settings import Paths
from router.ledger.wire import KeyRow, Policy
from tests.fakes import FakeActivator, FakeLedger, FakeReplica
from tests.router_world import endpoint_row


class Site:
    """A state folder, the fakes in it, and router processes on one port."""

    def __init__(self, folder: Path) -> None:
        self.paths = Paths(folder)
        self.paths.make()
        self.port, self.metrics_port = free_port(), free_port(8)
        self.key = mint()
        digest = hash_key(ensure_pepper(self.paths), self.key).hex()
        policy = Policy(
            version=1, keys=(KeyRow(hash=digest, key_id="k", org_id="default", endpoint_id="e1", scope="inference"),)
        )
        self.replica = FakeReplica(f"unix:{self.paths.run}/p.sock")
        self.activator = FakeActivator(self.paths.address("activator"), endpoint_row())
        self.ledger = FakeLedger(self.paths.address("ledger"), policy)

    async def start(self, **settings: str) -> asyncio.subprocess.Process:
        environment = {
            "PILOTLIGHT_STATE_DIR": str(self.paths.state),
            "PILOTLIGHT_ROUTER__PORT": str(self.port),
            "PILOTLIGHT_ROUTER__METRICS_PORT": str(self.metrics_port),
            **settings,
        }
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "router", env={**os.environ, **environment}, stderr=asyncio.subprocess.PIPE
        )

    async def ready(self, workers: int = 1) -> None:
        await self.activator.until(lambda: len(self.activator.streams) == workers)
        await self.ledger.until(lambda: len(self.ledger.streams) == workers)
        async with self.http() as http:
            assert (await http.get("/readyz")).status_code == 200

    def http(self) -> httpx.AsyncClient:
        import ssl

        context = ssl.create_default_context(cafile=str(self.paths.ca_cert))
        return httpx.AsyncClient(base_url=f"https://localhost:{self.port}", verify=context, timeout=120)

    def openai(self) -> openai.AsyncOpenAI:
        import httpx2

        client: Any = httpx2.AsyncClient(verify=str(self.paths.ca_cert))
        return openai.AsyncOpenAI(
            base_url=f"https://localhost:{self.port}/e/tiny/v1", api_key=self.key, max_retries=0, http_client=client
        )

    def show(self, **more: Any) -> None:
        self.activator.push(endpoint_row(ReplicaRow(replica_id="p", address=self.replica.address, slots=8), **more))

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for file in self.paths.spool.glob("*.jsonl") for line in file.read_text().splitlines()]


@contextlib.asynccontextmanager
async def site() -> AsyncIterator[Site]:
    with tempfile.TemporaryDirectory(prefix="pl") as name:
        made = Site(Path(name))
        await made.replica.start()
        await made.activator.start()
        await made.ledger.start()
        try:
            yield made
            await made.replica.end()
        finally:
            await made.replica.stop()
            await made.activator.stop()
            await made.ledger.stop()


async def stopped(process: asyncio.subprocess.Process) -> int:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    return await process.wait()


def is_free(port: int) -> bool:
    """A process that ends closes one socket after the other."""
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False
