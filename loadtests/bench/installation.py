"""An installation for measuring: started like `pilotlight up`, on a folder of its own, asked only over HTTPS."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from loadtests.bench.inventory import Inventory, inventory_of
from pilotlight.cli.api import Api, ApiError
from pilotlight.cli.bench import coldstart as measured
from pilotlight.cli.up.installation import Installation
from pilotlight.ports import free_port
from pilotlight.settings import Paths, load
from snapshots.pack import pack

STANDBY_SECONDS = 180.0  # the longest a rehearsal may take


class Bench:
    """What a measurement needs of a running installation."""

    def __init__(self, api: Api, installation: Installation, paths: Paths) -> None:
        self.api = api
        self.installation = installation
        self.paths = paths

    def inventory(self) -> Inventory:
        """What the installation holds of the machine now."""
        return inventory_of(self.paths.state, [child.pid for child in self.installation.children])

    async def deploy(self, name: str, model: Path, **wanted: Any) -> str:
        """Pack, deploy at zero and return a key."""
        manifest = await asyncio.to_thread(pack, model, self.paths.snapshots)
        return await self.deploy_digest(name, manifest.digest, **wanted)

    async def deploy_digest(self, name: str, digest: str, **wanted: Any) -> str:
        """Deploy at zero what is packed here or lies at the origin, and return a key."""
        await self.call("PUT", f"/endpoints/{name}", json={"digest": digest, "min_replicas": 0, **wanted})
        key: str = (await self.call("POST", f"/endpoints/{name}/keys", json={"name": "bench"}))["key"]
        async with asyncio.timeout(10):  # a new key is on its way to the routers
            while not await asyncio.to_thread(self._knows, name, key):
                await asyncio.sleep(0.02)
        return key

    def _knows(self, name: str, key: str) -> bool:
        return self.api.succeeds("GET", f"/e/{name}/v1/models", headers={"authorization": f"Bearer {key}"})

    async def call(self, method: str, path: str, **arguments: Any) -> Any:
        return await asyncio.to_thread(self.api.call, method, path, **arguments)

    async def replicas(self, name: str) -> list[dict[str, Any]]:
        try:
            status = await self.call("GET", "/status")
        except ApiError:
            return []  # the activator is away
        found = [endpoint for endpoint in status["endpoints"] if endpoint["name"] == name]
        return [replica for endpoint in found for revision in endpoint["revisions"] for replica in revision["replicas"]]

    async def until_zero(self, name: str) -> None:
        while await self.replicas(name):
            await asyncio.sleep(0.1)

    async def first_token(self, name: str, key: str, question: str) -> tuple[float, str]:
        """Seconds from opening a fresh TLS connection to the first content token, and the request's id. Raises
        ApiError, HTTPError.
        """
        return await asyncio.to_thread(measured.first_token, self.api, name, key, question)

    async def row(self, request_id: str) -> dict[str, Any]:
        """The settled usage row of a request."""
        return await asyncio.to_thread(measured.settled, self.api, request_id)


@asynccontextmanager
async def running(**sections: dict[str, Any]) -> AsyncIterator[Bench]:
    """Start, wait for a rehearsed standby, stop, remove. `sections`: settings, by section, beside those a measurement
    needs.
    """
    state = Path(tempfile.mkdtemp(prefix="pl-bench-", dir="/tmp"))
    state.chmod(0o711)
    settings = load(state_dir=state, **{"router": {"port": free_port(), "metrics_port": free_port(8)}, **sections})
    installation = Installation(settings, lambda text: None)
    try:
        await installation.start()
        bench = Bench(Api(settings.paths), installation, settings.paths)
        async with asyncio.timeout(STANDBY_SECONDS):
            while not any(node["standbys_ready"] for node in (await bench.call("GET", "/status"))["nodes"]):
                await asyncio.sleep(0.1)
        yield bench
    finally:
        await installation.stop()
        shutil.rmtree(state, ignore_errors=True)
