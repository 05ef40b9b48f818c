"""`make bench`: measure what this machine can measure and rewrite results.json and RESULTS.md beside this file.

    python -m loadtests.bench [SECTION …] [--wakes N] [--stock N]

Each section replaces its own figures and leaves the others; every figure carries the hardware it was measured on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from loadtests.bench import coldstart, fresh, hardware, line, memory, metering, relay
from loadtests.bench.report import render
from snapshots.synth import synth

HERE = Path(__file__).parent
DEMO_MODEL = HERE.parents[1] / "snapshots" / "demo" / "model"

Section = Callable[[argparse.Namespace], Coroutine[Any, Any, dict[str, Any]]]


async def coldstart_demo(options: argparse.Namespace) -> dict[str, Any]:
    return await coldstart.measure(DEMO_MODEL, wakes=options.wakes, stock_starts=options.stock)


def synthesised(like: str) -> Section:
    """A cold-start section on random weights of a real shape, made for it in a temporary folder."""

    async def section(options: argparse.Namespace) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="pl-synth-", dir="/tmp") as folder:
            model = await asyncio.to_thread(synth, like, Path(folder) / like)
            return await coldstart.measure(model, wakes=options.wakes, stock_starts=options.stock)

    return section


async def warm_path(options: argparse.Namespace) -> dict[str, Any]:
    return await relay.measure()


async def simultaneous(options: argparse.Namespace) -> dict[str, Any]:
    return await line.measure(DEMO_MODEL)


async def recovery(options: argparse.Namespace) -> dict[str, Any]:
    return await line.recovery(DEMO_MODEL)


async def rows_beside_counters(options: argparse.Namespace) -> dict[str, Any]:
    return await metering.measure()


async def at_zero(options: argparse.Namespace) -> dict[str, Any]:
    return await memory.measure()


async def newcomer(options: argparse.Namespace) -> dict[str, Any]:
    return await asyncio.to_thread(fresh.measure)


SECTIONS: dict[str, Section] = {
    "coldstart_demo": coldstart_demo,
    "coldstart_tiny": synthesised("tiny"),
    "coldstart_qwen3": synthesised("qwen3-0.6b"),
    "relay": warm_path,
    "simultaneous": simultaneous,
    "recovery": recovery,
    "metering": rows_beside_counters,
    "memory": at_zero,
    "newcomer": newcomer,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all, unless given")
    parser.add_argument("--wakes", type=int, default=10, help="wakes from zero a cold-start section")
    parser.add_argument("--stock", type=int, default=3, help="starts of stock vLLM between them")
    options = parser.parse_args()
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    for name in options.sections or SECTIONS:
        record(name, asyncio.run(SECTIONS[name](options)))


def record(name: str, figures: dict[str, Any]) -> None:
    """Put one section's figures into results.json and render RESULTS.md from all of them."""
    file = HERE / "results.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    results[name] = {"hardware": hardware.describe(), **figures}
    file.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    (HERE / "RESULTS.md").write_text(render(results))


if __name__ == "__main__":
    main()
