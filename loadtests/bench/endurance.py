"""Wakes in a row, and what they leave: `tiny` from zero again and again, while another endpoint that stays warm is
called.

After the first few wakes, and after the last, the installation is at rest on the same rung. What it then holds of the
machine must be the same, and its standby the same process. A wake that fails is counted and told, and the next is
tried. What the time did not suffice for was not shown: a target says how many wakes there were to be. The trickle
pauses while stock vLLM starts.
"""

from __future__ import annotations

import asyncio
import math
import ssl
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from loadtests.bench import inventory
from loadtests.bench.coldstart import SLOTS, stock_start
from loadtests.bench.installation import Bench, running
from loadtests.bench.targets import at_least, at_most, none
from pilotlight.cli.api import ApiError
from pilotlight.cli.bench import coldstart as measured

DEMO_MODEL = Path(__file__).parents[2] / "snapshots" / "demo" / "model"
IDLE_SECONDS = 0.2
REST_SECONDS = 0.3
FIRST = 5  # wakes before what there is counts as what there should be
LIMIT_SECONDS = 600.0  # of all wakes; those not made by then are missed
MOST_FAILURES = 5
SETTLE_SECONDS = 15.0  # until what is on its way out is gone
EVERY_SECONDS = 1.0  # a call of the trickle
GROWTH_BYTES = 4_000_000  # of the standby over all wakes: five pages each, over two hundred


class Trickle:
    """One small call a second to an endpoint that stays warm, over one connection, until closed."""

    def __init__(self, bench: Bench, name: str, key: str) -> None:
        self._url, self._ca = f"{bench.api.url}/e/{name}/v1/completions", bench.api.ca_file
        self._key = key
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self._go, self._end = threading.Event(), threading.Event()
        self._go.set()
        self._thread = threading.Thread(target=self._run, name="trickle", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        context = ssl.create_default_context(cafile=self._ca)
        body = {"prompt": "a", "max_tokens": 1, "temperature": 0}
        with httpx.Client(
            verify=context, headers={"authorization": f"Bearer {self._key}"}, timeout=60, trust_env=False
        ) as client:
            while not self._end.wait(EVERY_SECONDS):
                self._go.wait()
                begin = time.monotonic()
                try:
                    answer = client.post(self._url, json=body)
                    if answer.status_code != 200:
                        self.failures.append(f"HTTP {answer.status_code}")
                except httpx.HTTPError as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                self.seconds.append(time.monotonic() - begin)

    def pause(self) -> None:
        self._go.clear()

    def resume(self) -> None:
        self._go.set()

    def close(self) -> None:
        self._end.set()
        self._go.set()
        self._thread.join()


async def measure(model: Path, found: dict[str, Any], *, wakes: int, stock_starts: int, trickle: bool) -> None:
    async with running() as bench:
        key = await bench.deploy("bench", model, idle_timeout_seconds=IDLE_SECONDS, slots=SLOTS)
        beside = None
        if trickle:
            other = await bench.deploy("warm", DEMO_MODEL, min_replicas=1, max_replicas=1, slots=SLOTS)
            await bench.first_token("warm", other, measured.QUESTION)
            beside = Trickle(bench, "warm", other)
        first = await asyncio.to_thread(measured.wake, bench.api, "bench", key)
        found["first_boot_s"] = first["seconds"]
        try:
            await asyncio.to_thread(
                _row, bench, key, model, found, wakes=wakes, stock_starts=stock_starts, trickle=beside
            )
        finally:
            if beside:
                await asyncio.to_thread(beside.close)
                found |= _figures(beside)
    found["targets"] = targets(found, wakes)


def _row(
    bench: Bench,
    key: str,
    model: Path,
    found: dict[str, Any],
    *,
    wakes: int,
    stock_starts: int,
    trickle: Trickle | None,
) -> None:
    """The wakes, in a thread of their own; `found` is filled in as they go."""
    ours, others, failures = list[dict[str, float]](), list[float](), list[str]()
    every, stock = max(1, wakes // stock_starts) if stock_starts else wakes + 1, stock_start(model)
    deadline, before = time.monotonic() + LIMIT_SECONDS, None
    for number in range(1, wakes + 1):
        try:
            ours.append(measured.wake(bench.api, "bench", key, rest=REST_SECONDS))
        except (ApiError, httpx.HTTPError) as error:
            failures.append(f"wake {number}: {error}")
            measured.say(failures[-1])
        if number == min(FIRST, wakes):
            before = at_rest(bench)
        if number % 10 == 0 and ours:
            measured.say(
                f"wake {number} of {wakes}: {ours[-1]['seconds']:.3f} s, median {statistics.median(w['seconds'] for w in ours):.3f} s"
            )
        if number % every == 0 and len(others) < stock_starts:
            others.append(_stock_alone(bench, stock, trickle))
        found |= {**measured.summary(ours, others), "failures": failures} if ours else {"failures": failures}
        if time.monotonic() > deadline or len(failures) > MOST_FAILURES:
            measured.say(
                f"ended after wake {number} of {wakes}: {len(failures)} failed, the limit is {LIMIT_SECONDS:g} s"
            )
            break
    if before is not None:
        found |= compared(before, until_nothing_left(bench, before))


def _stock_alone(bench: Bench, stock: Any, trickle: Trickle | None) -> float:
    measured.until_rest(bench.api, "bench")
    if trickle:
        trickle.pause()
    took: float = stock()
    measured.say(f"stock: {took:.2f} s")
    if trickle:
        trickle.resume()
    return took


def at_rest(bench: Bench) -> inventory.Inventory:
    """What the installation holds when the endpoint is at zero and nothing is on its way out any more: twice the same,
    a second apart.
    """
    measured.until_rest(bench.api, "bench")
    deadline, last = time.monotonic() + SETTLE_SECONDS, bench.inventory()
    while time.monotonic() < deadline:
        time.sleep(1.0)
        now = bench.inventory()
        if not now.left_since(last) and not last.left_since(now):
            return now
        last = now
    return last


def until_nothing_left(bench: Bench, before: inventory.Inventory) -> inventory.Inventory:
    """What it holds once that is no more than before, or at the end of our patience."""
    measured.until_rest(bench.api, "bench")
    deadline = time.monotonic() + SETTLE_SECONDS
    while (now := bench.inventory()).left_since(before) and time.monotonic() < deadline:
        time.sleep(0.5)
    return now


def compared(before: inventory.Inventory, after: inventory.Inventory) -> dict[str, Any]:
    rows = [["", f"after the first {FIRST} wakes, MB", "at the end, MB"]]
    for name, then, now in zip(("PSS", "private"), before.standby, after.standby, strict=True):
        rows.append([f"standby, {name}", f"{then / 1e6:.1f}", f"{now / 1e6:.1f}"])
    counts = [
        ["role", "descriptors then", "at the end"],
        *([role, str(before.descriptors[role]), str(after.descriptors[role])] for role in sorted(before.descriptors)),
    ]
    return {
        "left": {kind: str(what) for kind, what in after.left_since(before).items()},
        "standby_growth_bytes": max(now - then for then, now in zip(before.standby, after.standby, strict=True)),
        "tables": {"Memory of the standby": rows, "Descriptors": counts},
    }


def _figures(trickle: Trickle) -> dict[str, Any]:
    seconds = trickle.seconds or [0.0]
    return {
        "trickle, calls": len(trickle.seconds),
        "trickle, failed": len(trickle.failures),
        "trickle, p50 / slowest, ms": f"{statistics.median(seconds) * 1e3:.0f} / {max(seconds) * 1e3:.0f}",
    }


def targets(found: dict[str, Any], wakes: int) -> list[dict[str, Any]]:
    """`wakes`: how many there were to be. What was not measured is not met."""
    p50, p95 = found["p50_s"], found["p95_s"]
    made = [
        at_most("must", "p50", p50, 0.55),
        at_most("goal", "p50", p50, 0.30),
        at_most("must", "p95 / p50", p95 / p50, 1.5, ""),
    ]
    if "ratio" in found:
        made += [
            at_least("must", "times faster than stock", found["ratio"], 38),
            at_least("goal", "times faster than stock", found["ratio"], 70),
        ]
    made += [
        at_least("must", "wakes made", found["wakes"], wakes),
        none("must", "wakes that fail", "; ".join(found["failures"])),
    ]
    made += [none("must", "processes, sockets, shared memory, descriptors left", found.get("left", "not looked at"))]
    growth = found.get("standby_growth_bytes", math.inf)
    return [*made, at_most("must", "growth of the standby", growth / 1e6, GROWTH_BYTES / 1e6, "MB")]
