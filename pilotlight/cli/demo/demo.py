"""`make demo`: the whole way once, as a user would go it, on a state folder of its own that is removed at the end.

Everything it shows is asked of the running installation over HTTPS; nothing is timed or counted on the inside. Ctrl-C
at any moment stops what was started, in order, and removes the folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from pilotlight.cli.api import Api, ApiError
from pilotlight.cli.demo.demo_user import DemoFailed, ask_and_stream, console, show_logs, type_command
from pilotlight.cli.tables import Table, show
from pilotlight.cli.up.installation import Installation
from pilotlight.cli.usage.show import print_usage
from pilotlight.cli.waterfall import print_waterfall
from pilotlight.ports import free_port
from pilotlight.settings import Settings, load

MODEL = Path(__file__).parents[3] / "snapshots" / "demo" / "model"
ENDPOINT = "demo"
QUESTIONS = ("What is Pilotlight?", "What is a cold start?", "Why is it called Pilotlight?")
IDLE_SECONDS = 2.0
REHEARSAL_SECONDS = 300.0  # as long as a standby may take (runtime.rehearsal_seconds)


def run_demo() -> int:
    # Postgres runs unprivileged where we are root, so the folder must be traversable; its secrets are not.
    state = Path(tempfile.mkdtemp(prefix="pilotlight-", dir="/tmp"))
    state.chmod(0o711)
    try:
        return asyncio.run(_demo(state))
    finally:
        shutil.rmtree(state, ignore_errors=True)


async def _demo(state: Path) -> int:
    settings = load(state_dir=state, router={"port": free_port(), "metrics_port": free_port(8)})
    installation = Installation(settings, lambda text: console.print(f"[dim]{text}[/dim]"))
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    work = asyncio.ensure_future(_steps(settings, installation))
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            console.print("interrupted")
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
            return 130
        await work
    except (DemoFailed, ApiError) as error:
        console.print(f"the demo failed: {error}; logs were in {settings.paths.logs}")
        show_logs(settings.paths.logs)
        return 1
    finally:
        stop.cancel()
        console.print("[dim]stopping everything[/dim]")
        await installation.stop()
    console.print("[dim]nothing is left running[/dim]")
    return 0


async def _steps(settings: Settings, installation: Installation) -> None:
    await installation.start()
    api = Api(settings.paths)
    await _rehearsed(api)
    deployed = await type_command(
        "deploy",
        ENDPOINT,
        "--model",
        str(MODEL),
        "--idle-timeout",
        str(IDLE_SECONDS),
        "--no-wait",
        state=settings.paths.state,
    )
    console.print(f"deployed at {deployed.strip()} with min_replicas = 0")
    key = (await type_command("keys", "create", ENDPOINT, state=settings.paths.state)).strip()
    console.print(f"API key {key[:6]}…{key[-4:]}\n")

    cold = await _ask(api, key, QUESTIONS[0], "cold")
    row = await _settled(api, cold["id"])
    console.print("\nthe cold start, phase by phase")
    print_waterfall(row["phases"], row["first_byte_ms"] / 1000)
    console.print()
    warm = await _ask(api, key, QUESTIONS[1], "warm")
    await _settled(api, warm["id"])
    console.print("\nusage, read back from Postgres")
    print_usage(api.call("GET", "/usage", params={"endpoint": ENDPOINT}))
    console.print(f"\n[dim]nobody calls for {IDLE_SECONDS:g} s …[/dim]")
    await _until_zero(api)
    console.print("the endpoint is at zero: no replica process\n")
    again = await _ask(api, key, QUESTIONS[2], "cold")
    await _settled(api, again["id"])
    console.print()
    _compare({"cold": cold, "warm": warm, "cold again": again})


async def _ask(api: Api, key: str, question: str, expected: str) -> dict[str, Any]:
    """Ask with the OpenAI client and stream the answer. Returns what it took, as the client saw it."""
    console.print(f"[bold]> {question}[/bold]")
    took: dict[str, Any] = await asyncio.to_thread(ask_and_stream, api, ENDPOINT, key, question)
    if not took["text"]:
        raise DemoFailed(f"an empty answer to {question!r}")
    if took["start"] != expected:
        raise DemoFailed(f"expected a {expected} start, the router says {took['start']}")
    return took


async def _rehearsed(api: Api) -> None:
    console.print("[dim]rehearsing the engine (once; every cold start then forks from it)[/dim]")
    await _until(
        lambda: _standby_ready(api), REHEARSAL_SECONDS, f"the standby was not ready in {REHEARSAL_SECONDS:g} s"
    )


async def _standby_ready(api: Api) -> bool:
    status = await asyncio.to_thread(api.call, "GET", "/status")
    return any(node["standbys_ready"] for node in status["nodes"])


async def _until_zero(api: Api) -> None:
    async def zero() -> bool:
        status = await asyncio.to_thread(api.call, "GET", "/status")
        return not any(revision["replicas"] for endpoint in status["endpoints"] for revision in endpoint["revisions"])

    await _until(zero, 60, "the endpoint did not go to zero in 60 s")


async def _settled(api: Api, request_id: str) -> dict[str, Any]:
    """The usage row of a request, from Postgres, once the ledger has settled it."""
    found: dict[str, Any] = {}

    async def there() -> bool:
        with contextlib.suppress(ApiError):  # 404 until it is settled
            found.update(await asyncio.to_thread(api.call, "GET", f"/requests/{request_id}"))
        return bool(found)

    await _until(there, 15, f"no usage row for request {request_id} in 15 s")
    return found


async def _until(condition: Callable[[], Coroutine[Any, Any, bool]], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            raise DemoFailed(otherwise)
        await asyncio.sleep(0.05)


def _compare(calls: dict[str, dict[str, Any]]) -> None:
    table = Table("call", "first token, s", "whole answer, s")
    for name, took in calls.items():
        table.add_row(name, f"{took['first']:.3f}", f"{took['whole']:.3f}")
    show(table)
