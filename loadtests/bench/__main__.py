"""`make bench`: measure what this machine can measure and rewrite results.json and RESULTS.md beside this file.

    python -m loadtests.bench [SECTION …] [--wakes N] [--stock N]

Each section replaces its own figures and leaves the others; every figure carries the hardware it was measured on. What
a section has found when a part of it fails is written with the reason; one that found nothing leaves its old figures.
The exit status is 1 when a section failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from loadtests.bench import (
    coldstart,
    endurance,
    fresh,
    growth,
    hardware,
    line,
    loading,
    memory,
    metering,
    parked,
    qwen3,
    relay,
    room,
    stopped,
    stored,
    strangers,
)
from loadtests.bench.report import render
from loadtests.bench.targets import none
from loadtests.torture.run import FULL, torture
from pilotlight.files import write_atomic
from snapshots.synth import synth

HERE = Path(__file__).parent
DEMO_MODEL = HERE.parents[1] / "snapshots" / "demo" / "model"

WAKES, IN_A_ROW = 10, 200

Found = dict[str, Any]
Section = Callable[[argparse.Namespace, Found], Coroutine[Any, Any, None]]


def on(like: str, measure: Callable[[Path, argparse.Namespace, Found], Coroutine[Any, Any, None]]) -> Section:
    """A section on random weights of a real shape, made for it in a temporary folder."""

    async def section(options: argparse.Namespace, found: Found) -> None:
        with tempfile.TemporaryDirectory(prefix="pl-synth-", dir="/tmp") as folder:
            await measure(await asyncio.to_thread(synth, like, Path(folder) / like), options, found)

    return section


async def cold_starts(model: Path, options: argparse.Namespace, found: Found) -> None:
    await coldstart.measure(model, found, wakes=options.wakes or WAKES, stock_starts=options.stock)


async def coldstart_demo(options: argparse.Namespace, found: Found) -> None:
    await cold_starts(DEMO_MODEL, options, found)


async def wakes_in_a_row(model: Path, options: argparse.Namespace, found: Found) -> None:
    await endurance.measure(
        model, found, wakes=options.wakes or IN_A_ROW, stock_starts=options.stock, trickle=not options.no_trickle
    )


async def qwen3_shape(model: Path, options: argparse.Namespace, found: Found) -> None:
    await qwen3.measure(model, found, wakes=options.wakes or WAKES, stock_starts=options.stock)


async def parked_rung(model: Path, options: argparse.Namespace, found: Found) -> None:
    await parked.measure(model, found, wakes=options.wakes or WAKES)


async def stored_rung(model: Path, options: argparse.Namespace, found: Found) -> None:
    await stored.measure(model, found, wakes=options.wakes or WAKES)


async def loader_table(options: argparse.Namespace, found: Found) -> None:
    """On a GPU a larger file: what comes before the first byte is not to count."""

    async def load(model: Path, options: argparse.Namespace, found: Found) -> None:
        await asyncio.to_thread(loading.measure, model, found, rounds=options.rounds)

    await on("qwen3-0.6b" if hardware.gpu() == "none" else "llama3-8b", load)(options, found)


async def warm_path(options: argparse.Namespace, found: Found) -> None:
    found |= await relay.measure()


async def simultaneous(options: argparse.Namespace, found: Found) -> None:
    found |= await line.measure(DEMO_MODEL)


async def recovery(options: argparse.Namespace, found: Found) -> None:
    found |= await line.recovery(DEMO_MODEL)


async def rows_beside_counters(options: argparse.Namespace, found: Found) -> None:
    found |= await metering.measure()


async def torn(options: argparse.Namespace, found: Found) -> None:
    verdict = await torture(FULL)
    found |= verdict.figures
    found["targets"] = [none("must", "rows that are lost, double or wrong", verdict.faults[:5])]


async def turns(options: argparse.Namespace, found: Found) -> None:
    found |= await asyncio.to_thread(room.measure)


async def stopped_processes(options: argparse.Namespace, found: Found) -> None:
    found |= await asyncio.to_thread(stopped.measure)


async def at_zero(options: argparse.Namespace, found: Found) -> None:
    found |= await memory.measure()


async def what_grows(options: argparse.Namespace, found: Found) -> None:
    found |= await growth.measure()


async def bad_clients(options: argparse.Namespace, found: Found) -> None:
    found |= await strangers.measure()


async def newcomer(options: argparse.Namespace, found: Found) -> None:
    found |= await asyncio.to_thread(fresh.measure)


SECTIONS: dict[str, Section] = {
    "coldstart_demo": coldstart_demo,
    "coldstart_tiny": on("tiny", cold_starts),
    "endurance": on("tiny", wakes_in_a_row),
    "qwen3": on("qwen3-0.6b", qwen3_shape),
    "parked": on("tiny", parked_rung),
    "stored": on("tiny", stored_rung),
    "loaders": loader_table,
    "relay": warm_path,
    "simultaneous": simultaneous,
    "recovery": recovery,
    "metering": rows_beside_counters,
    "torture": torn,
    "stopped": stopped_processes,
    "room": turns,
    "memory": at_zero,
    "growth": what_grows,
    "strangers": bad_clients,
    "newcomer": newcomer,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all, unless given")
    parser.add_argument(
        "--wakes", type=int, help=f"wakes from zero a cold-start section; {WAKES}, in a row {IN_A_ROW}, unless given"
    )
    parser.add_argument("--stock", type=int, default=3, help="starts of stock vLLM between them")
    parser.add_argument("--rounds", type=int, default=3, help="loads of each loader, warm and cold")
    parser.add_argument("--no-trickle", action="store_true", help="endurance without traffic to another endpoint")
    options = parser.parse_args()
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    failed = [name for name in options.sections or SECTIONS if not run(name, options)]
    if failed:
        sys.exit(f"not complete: {', '.join(failed)}")


def run(name: str, options: argparse.Namespace) -> bool:
    """Measure one section and write what it found; False where it did not come to its end."""
    print(f"== {name}", file=sys.stderr, flush=True)
    found, failed, begin = Found(), "interrupted", time.monotonic()
    try:
        asyncio.run(SECTIONS[name](options, found))
        failed = ""
    except Exception as error:
        traceback.print_exc()
        failed = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    finally:
        if found:
            record(
                name, {**found, **({"failed": failed} if failed else {}), "took_s": round(time.monotonic() - begin, 1)}
            )
    return not failed


def record(name: str, figures: Found) -> None:
    """Put one section's figures into results.json and render RESULTS.md from all of them."""
    file = HERE / "results.json"
    results: Found = json.loads(file.read_text()) if file.exists() else {}
    results[name] = {"hardware": hardware.describe(), **figures}
    write_atomic(file, (json.dumps(results, indent=1) + "\n").encode(), mode=0o644)
    write_atomic(HERE / "RESULTS.md", render(results).encode(), mode=0o644)


if __name__ == "__main__":
    main()
