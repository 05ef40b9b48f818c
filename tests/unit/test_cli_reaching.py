"""The command line reaches its installation whatever certificate strangers are shown, and where the router does not
lead to the admin API.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from pilotlight import keys, tls
from pilotlight.cli.api import Api, Unreachable
from pilotlight.cli.up.readiness import Asker
from pilotlight.settings import Settings, load
from router.edge.certificate import Certificates, Pair
from tests.certificates import write_pair


async def says(who: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    asked = await reader.readuntil(b"\r\n\r\n")
    body = json.dumps({"who": who, "asked": asked.split()[1].decode()}).encode()
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
    await writer.drain()
    writer.close()


@pytest.mark.parametrize("admin", ["public", "off"])
async def test_it_is_reached_over_https_or_at_its_socket(tmp_path: Path, admin: str) -> None:
    state = load(state_dir=tmp_path / "s")
    state.paths.make()
    made = tls.ensure(state.paths)
    keys.ensure_admin_key(state.paths)
    # good for the address too, so shown to whoever names nothing
    own = write_pair(tmp_path, "llm.example.org", "127.0.0.1")
    context = Certificates(Pair(made.cert_file, made.key_file), own).context

    async def router(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await says("router", reader, writer)

    async def process(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await says("admin", reader, writer)

    async with (
        await asyncio.start_server(router, "127.0.0.1", 0, ssl=context) as public,
        await asyncio.start_unix_server(process, state.paths.run / "admin.sock"),
    ):
        port = public.sockets[0].getsockname()[1]
        told = {"url": f"https://127.0.0.1:{port}"} | ({"admin": "off"} if admin == "off" else {})
        state.paths.client.write_text(json.dumps(told))
        api = Api(state.paths)
        found = await asyncio.to_thread(api.call, "GET", "/status")
        assert found == {"who": "admin" if admin == "off" else "router", "asked": "/api/v1/status"}
        assert await asyncio.to_thread(api.succeeds, "GET", "/readyz"), "all else goes by the router"
        asker = Asker(asking(tmp_path, port, admin), "127.0.0.1")
        assert await asker.status() == found
        assert await asker.says_yes("/readyz")


def asking(tmp_path: Path, port: int, admin: str) -> Settings:
    return load(state_dir=tmp_path / "s", router={"port": port, "admin": admin})


async def test_a_socket_that_nobody_answers_at_is_said(tmp_path: Path) -> None:
    state = load(state_dir=tmp_path / "s")
    state.paths.make()
    tls.ensure(state.paths)
    keys.ensure_admin_key(state.paths)
    state.paths.client.write_text(json.dumps({"url": "https://127.0.0.1:1", "admin": "off"}))
    with pytest.raises(Unreachable, match="is `pilotlight up` running"):
        await asyncio.to_thread(Api(state.paths).call, "GET", "/status")
