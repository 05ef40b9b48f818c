"""The admin API in the test's own process, with fakes of what it asks: Postgres, the activator, the ledger, snapshots.

Each fake remembers what it was asked; `Bench` has them all, and `play` runs one scene with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from activator.wire import Deploy, Done, Remove, Rollback, Status, ToActivator, Wake
from pilotlight.audit import Note
from pilotlight.frames import FrameStream, serve
from pilotlight.keys import mint
from router.admin.app import make_app
from router.admin.audit import Audit
from router.admin.snapshots import Snapshots
from router.admin.store import AdminStore, Row, plain
from router.errors import Unavailable
from router.ledger.wire import AwaitKey, KeyTold, ToLedger

ADMIN_KEY, PEPPER = mint(), b"p" * 32


DIGEST = "sha256:" + "a" * 64


class FakeStore(AdminStore):
    """Postgres as the admin API sees it."""

    def __init__(self) -> None:
        self.names: list[str] = ["chat"]
        self.made: list[dict[str, Any]] = []
        self.revoked: list[str] = []
        self.rotated: list[tuple[str, float, float | None]] = []
        self.asked: dict[str, Any] = {}
        self.priced: list[dict[str, Any]] = []
        self.pages: list[list[Row]] = []
        self.cut_off = False  # after the pages
        self.away = False
        self.had: list[Row] = []  # revisions, newest first
        self.route: Row = {}
        self.acts: list[Note] = []
        self.never: set[str] = set()  # acts that Postgres will not take

    def _row(self, name: str) -> Row:
        return {"name": name, "endpoint_id": f"ep_{name}", "org_id": "default", **self.route}

    async def endpoints(self) -> list[Row]:
        if self.away:
            raise Unavailable("the database is away for the moment: try again", retry_after=2.0)
        return [self._row(name) for name in self.names]

    async def endpoint(self, name: str) -> Row | None:
        return next((row for row in await self.endpoints() if row["name"] == name), None)

    async def endpoint_id(self, name: str, *, org_id: str) -> str | None:
        return f"ep_{name}" if name in self.names else None

    async def create_key(self, **given: Any) -> Row:
        self.made.append(given)
        return {name: given[name] for name in ("key_id", "name", "prefix", "last_four")}

    async def rotate_key(self, old: str, **given: Any) -> Row | None:
        self.rotated.append((old, given["grace"], given["expires_in"]))
        replaced = next((key for key in self.made if key["key_id"] == old), None)
        if replaced is None:
            return None
        row = await self.create_key(**{"name": replaced["name"], "endpoint_id": replaced["endpoint_id"]} | given)
        return {**row, "replaces": old}

    async def keys(self, endpoint_id: str) -> list[Row]:
        return [
            {"key_id": key["key_id"], "prefix": key["prefix"]} for key in self.made if key["endpoint_id"] == endpoint_id
        ]

    async def revoke_key(self, key_id: str, *, org_id: str) -> Row | None:
        self.revoked.append(key_id)
        return {"key_id": key_id, "revoked_at": 1.0} if any(key["key_id"] == key_id for key in self.made) else None

    async def usage(self, **asked: Any) -> tuple[list[Row], Row]:
        self.asked = asked
        return [{"event_id": "e1", "cost": "0.0000100000"}], {"requests": 2, "corrections": 1, "cost": "0.0000300000"}

    async def create_price(self, **given: Any) -> Row:
        self.priced.append(given)
        return plain({"price_id": given["price_id"], "version": len(self.priced), "input_per_million": given["input"]})

    async def prices(self, endpoint_id: str) -> list[Row]:
        return [{"version": 1} for price in self.priced if price["endpoint_id"] == endpoint_id]

    async def price_now(self, endpoint_id: str, *, org_id: str) -> Row | None:
        return {"version": 1} if self.priced else None

    async def export_usage(self, **asked: Any) -> AsyncGenerator[list[Row], None]:
        self.asked = asked
        if self.away:
            raise Unavailable("the database is away for the moment: try again", retry_after=2.0)
        for page in self.pages:
            yield page
        if self.cut_off:
            raise Unavailable("the database is away for the moment: try again", retry_after=2.0)

    async def events(self, endpoint_id: str, *, org_id: str, limit: int) -> list[Row]:
        return [{"event_id": n, "kind": "canary_mismatch", "text": endpoint_id} for n in range(min(3, limit))]

    async def create_audit(self, note: Note, *, org_id: str) -> None:
        await self.endpoints()  # away, if it is
        if note.act in self.never:
            raise asyncpg.DataError("no")
        self.acts += [] if note.act_id in {each.act_id for each in self.acts} else [note]

    async def audit(self, **asked: Any) -> list[Row]:
        self.asked = asked
        return [plain({"act": note.act}) for note in reversed(self.acts)][: asked["limit"]]

    async def revisions(self, endpoint_id: str, *, org_id: str, limit: int) -> list[Row]:
        return self.had[:limit]

    async def cold_starts(self, **asked: Any) -> list[Row]:
        self.asked = asked
        return [{"cold_start_id": f"r{n}"} for n in range(min(3, asked["limit"]))]

    async def request(self, event_id: str, *, org_id: str) -> Row | None:
        tokens = {"input_tokens": 0, "cached_tokens": 0, "output_tokens": 7, "cost": "0.0000028000"}
        return {"event_id": event_id, "phases": [{"name": "load"}], **tokens} if event_id == "e1" else None

    async def requests_like(self, beginning: str, *, org_id: str) -> list[str]:
        return [event_id for event_id in ("e1", "abcdef01", "abcdef02") if event_id.startswith(beginning)]

    async def all_keys(self, *, org_id: str) -> list[Row]:
        return [{"key_id": key["key_id"], "endpoint": key["endpoint_id"].removeprefix("ep_")} for key in self.made]

    async def usage_by(self, by: list[str], **asked: Any) -> list[Row]:
        self.asked = asked | {"by": by}
        return [{"endpoint": f"e{n}", "requests": n} for n in range(min(3, asked["limit"]))]

    async def corrections(self, event_id: str, *, org_id: str) -> list[Row]:
        return [
            {"event_id": "e1.2", "input_tokens": 20, "cached_tokens": 4, "output_tokens": -2, "cost": "0.0000010000"}
        ]


class FakeActivator:
    """Answers every command with `answer`; None: dies instead."""

    def __init__(self) -> None:
        self.commands: list[Deploy | Rollback | Remove | Status | Wake] = []
        self.answer: Done | None = Done(ok=True, result={"nodes": []})

    async def greet(self, stream: FrameStream[Any]) -> None:
        command = await stream.receive()
        assert isinstance(command, Deploy | Rollback | Remove | Status | Wake)
        self.commands.append(command)
        if self.answer is not None:
            stream.send(self.answer)


class FakeLedger:
    """Says that the routers know, or (`everywhere` false) that they do not."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []
        self.everywhere = True

    async def greet(self, stream: FrameStream[Any]) -> None:
        asked = await stream.receive()
        assert isinstance(asked, AwaitKey)
        self.asked.append((asked.key_id, asked.live))
        stream.send(KeyTold(everywhere=self.everywhere))


class FakeSnapshots(Snapshots):
    """Has all that are asked for, but the one named."""

    def __init__(self) -> None:
        self.missing = ""

    async def refusal(self, digest: str) -> str:
        return f"snapshot {digest} is nowhere" if digest == self.missing else ""


class Bench:
    def __init__(self, folder: Path) -> None:
        self.address = f"unix:{folder}/a.sock"
        self.store, self.activator = FakeStore(), FakeActivator()
        self.ledger = FakeLedger()
        self.snapshots = FakeSnapshots()
        self.told = f"unix:{folder}/l.sock"
        self.notes = folder / "audit"
        self.notes.mkdir()
        self.audit = Audit(self.store, self.notes)
        given: dict[str, Any] = {
            "activator": self.address,
            "ledger": self.told,
            "admin_key": ADMIN_KEY,
            "pepper": PEPPER,
        }
        self.app = make_app(store=self.store, snapshots=self.snapshots, audit=self.audit, **given)

    async def ask(self, method: str, path: str, *, key: str | None = ADMIN_KEY, **given: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"} if key is not None else {}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://admin", headers=headers) as client:
            return await client.request(method, path, **given)


def play(folder: Path, scene: Callable[[Bench], Awaitable[None]], *, activator: bool = True) -> None:
    async def run() -> None:
        bench = Bench(folder)
        servers = [await serve(bench.told, ToLedger, bench.ledger.greet)]
        servers += [await serve(bench.address, ToActivator, bench.activator.greet)] if activator else []
        await scene(bench)
        for server in servers:
            server.close()

    asyncio.run(run())
