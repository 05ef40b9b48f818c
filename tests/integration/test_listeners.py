"""Listeners as operators have them: a certificate of their own that is renewed, plain HTTP for a proxy on the machine,
an admin API for few.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from tests.certificates import write_pair
from tests.fakes import Admin
from tests.integration.router_site import Site, site, stopped


async def serial_shown(s: Site, name: str | None) -> int:
    """Of the certificate that a client is shown which asks for this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", s.port, ssl=context, server_hostname=name or "")
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return x509.load_der_x509_certificate(found).serial_number


async def test_all_of_it_with_two_workers(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, "llm.example.org", number=1)
    async with site() as s, contextlib.AsyncExitStack() as end:
        admin = await Admin(s.paths.address("admin")).start()
        place = s.paths.run / "plain.sock"
        process = await s.start(
            PILOTLIGHT_ROUTER__WORKERS="2",
            PILOTLIGHT_ROUTER__CERTIFICATE=str(pair.certificate),
            PILOTLIGHT_ROUTER__CERTIFICATE_KEY=str(pair.key),
            PILOTLIGHT_ROUTER__PLAIN=f"unix:{place}",
            PILOTLIGHT_ROUTER__TRUSTED_PROXIES="unix",
            PILOTLIGHT_ROUTER__ADMIN="loopback",
        )
        end.push_async_callback(stopped, process)
        await s.ready(workers=2)  # by the name localhost, with our authority
        s.show()
        assert await serial_shown(s, "llm.example.org") == 1
        assert await serial_shown(s, None) != 1
        brought = {"authorization": f"Bearer {s.key}", "x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}
        async with httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(place)), base_url="http://llm.example.org"
        ) as proxy:
            asked = {"messages": [{"role": "user", "content": "hi"}]}
            assert (
                await proxy.post("/e/tiny/v1/chat/completions", json=asked, headers=brought, timeout=120)
            ).status_code == 200
            assert (await proxy.get("/api/v1/endpoints", headers=brought)).status_code == 403
            assert (await proxy.get("/api/v1/endpoints")).status_code == 403, (
                "plain HTTP is a proxy's, whatever it says"
            )
        async with s.http() as here:
            assert (await here.post("/api/v1/endpoints", content=b"{}")).status_code == 201
            assert (await here.post("/api/v1/endpoints", content=b"{}", headers=brought)).status_code == 403
        assert len(admin.requests) == 1
        write_pair(tmp_path, "llm.example.org", number=2)
        shown = set[int]()
        async with asyncio.timeout(90):
            while shown != {2}:  # both workers look every few seconds
                shown = {await serial_shown(s, "llm.example.org") for _ in range(6)}
        assert await stopped(process) == 0
        await admin.stop()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"CERTIFICATE": "/nonexistent/a.pem"}, "/nonexistent/a.pem cannot be read"),
        ({"PLAIN": "unix:/nonexistent/p.sock"}, "router.plain"),
        ({"PLAIN": "0.0.0.0:80"}, "router.plain: "),
    ],
)
async def test_what_cannot_be_is_one_line_and_an_end(settings: dict[str, str], says: str) -> None:
    async with site() as s:
        process = await s.start(**{f"PILOTLIGHT_ROUTER__{name}": value for name, value in settings.items()})
        _, said = await process.communicate()
        assert process.returncode == 1
        [line] = said.decode().splitlines()
        assert line.startswith("router: ") and says in line
