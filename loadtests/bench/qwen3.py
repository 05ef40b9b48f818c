"""A model of 1.2 GB: its wakes beside stock's, what two replicas share, and how fast it decodes before and after
packing.
"""

from __future__ import annotations

import asyncio
import ssl
import statistics
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from loadtests.bench.coldstart import IDLE_SECONDS, SLOTS, sized, stock_start
from loadtests.bench.decoding import Speaker, pace
from loadtests.bench.installation import Bench, running
from loadtests.bench.inventory import family
from loadtests.bench.parts import Parts
from loadtests.bench.targets import at_least, at_most
from pilotlight.cli.bench import coldstart as measured
from pilotlight.cli.bench import stock
from snapshots.synth import synth

TINY_MUST_SECONDS = 0.55
MAPPED_TOKENS = 5  # of the first answer after a wake: no layer is packed yet
LONG_TOKENS = 320  # a step packs a layer at most: with so many all are
LAST_TOKENS = 64
SPEAKS_SECONDS = 60.0  # idle, while stock speaks
ROUNDS = 3
SECONDS = 120.0  # the longest two replicas may take to be ready


async def measure(model: Path, found: dict[str, Any], *, wakes: int, stock_starts: int) -> None:
    parts = Parts()
    async with running() as bench:
        with parts.part("wakes of tiny, for comparison"):
            found["tiny_p50_s"] = round((await _tiny(bench, wakes))["p50_s"], 4)
        with parts.part("wakes"):
            key = await bench.deploy("bench", model, idle_timeout_seconds=IDLE_SECONDS, slots=SLOTS)
            found["first_boot_s"] = (await asyncio.to_thread(measured.wake, bench.api, "bench", key))["seconds"]
            found |= await asyncio.to_thread(
                measured.coldstart,
                bench.api,
                "bench",
                key,
                wakes=wakes,
                stock=stock_start(model),
                stock_starts=stock_starts,
            )
        with parts.part("what two replicas share"):
            found |= await _shared(bench, model)
        with parts.part("decoding, beside stock"):
            found |= await _decoding(bench, model)
    found["targets"] = targets(found)
    parts.finish()


async def _tiny(bench: Bench, wakes: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="pl-synth-", dir="/tmp") as folder:
        tiny = await asyncio.to_thread(synth, "tiny", Path(folder) / "tiny")
        key = await bench.deploy("tiny", tiny, idle_timeout_seconds=IDLE_SECONDS, slots=SLOTS)
    await asyncio.to_thread(measured.wake, bench.api, "tiny", key)
    found = await asyncio.to_thread(measured.coldstart, bench.api, "tiny", key, wakes=wakes)
    await asyncio.to_thread(measured.until_rest, bench.api, "tiny")
    return found


async def _shared(bench: Bench, model: Path) -> dict[str, Any]:
    """Two replicas that have answered nothing but their canaries: what of the baked copy each has to itself."""
    await asyncio.to_thread(measured.until_rest, bench.api, "bench")
    await bench.deploy("pair", model, min_replicas=2, max_replicas=2, slots=SLOTS)
    try:
        async with asyncio.timeout(SECONDS):
            while [replica["state"] for replica in await bench.replicas("pair")] != ["ready", "ready"]:
                await asyncio.sleep(0.1)
        mappings = await asyncio.to_thread(_mappings, bench.paths.state, bench.paths.baked)
    finally:
        await bench.call("DELETE", "/endpoints/pair")
        await bench.until_zero("pair")
    rows = [["replica", "resident, MB", "shared, MB", "private, MB", "PSS, MB"]]
    for number, mapping in enumerate(mappings, start=1):
        private = mapping["Private_Clean"] + mapping["Private_Dirty"]
        rows.append(
            [
                str(number),
                *(
                    f"{value / 1e6:.1f}"
                    for value in (mapping["Rss"], mapping["Rss"] - private, private, mapping["Pss"])
                ),
            ]
        )
    size = max(mapping["Size"] for mapping in mappings)
    return {
        "weights_mapped_by_replicas": len(mappings),
        "weights_pss_over_size": round(sum(mapping["Pss"] for mapping in mappings) / size, 4),
        "tables": {"The mapped weights of two replicas before repacking": rows},
    }


def _mappings(state: Path, baked: Path) -> list[Counter[str]]:
    """What `smaps` says of the baked copy in each process that maps it, in bytes."""
    found = []
    for pid, _ in family(state):
        try:
            text = Path(f"/proc/{pid}/smaps").read_text()
        except OSError:
            continue
        mapping, inside = Counter[str](), False
        for row in text.splitlines():
            name, *rest = row.split()
            if not name.endswith(":"):  # the first row of a mapping: addresses, rights, offset, device, inode, path
                inside = str(baked) in row and ".safetensors" in row
            elif inside and rest[-1:] == ["kB"]:
                mapping[name.rstrip(":")] += int(rest[0]) << 10
        if mapping["Rss"]:
            found.append(mapping)
    return found


async def _decoding(bench: Bench, model: Path) -> dict[str, Any]:
    """Ours and stock's in turn, in the same minute: stock stands still while ours speaks, and ours has nothing to do
    while stock does.
    """
    size = sized(model)
    server = stock.running(model, kv_cache_bytes=size.kv_cache_bytes, max_model_len=size.max_model_len, slots=SLOTS)
    started = await asyncio.to_thread(server.__enter__)
    try:
        started.pause()
        key = await bench.deploy("speaks", model, idle_timeout_seconds=SPEAKS_SECONDS, slots=SLOTS)
        context, headers = ssl.create_default_context(cafile=bench.api.ca_file), {"authorization": f"Bearer {key}"}
        async with (
            httpx.AsyncClient(
                base_url=bench.api.url, verify=context, headers=headers, timeout=300, trust_env=False
            ) as client,
            httpx.AsyncClient(base_url=started.url, timeout=300, trust_env=False) as stock_client,
        ):
            ours = Speaker(client, "/e/speaks/v1/completions", "speaks")
            moments = await ours.moments("Once", LONG_TOKENS)
            return _paces(
                moments, *(await _in_turn(ours, Speaker(stock_client, "/v1/completions", stock.MODEL), started))
            )
    finally:
        started.resume()
        await asyncio.to_thread(server.__exit__, None, None, None)
        await bench.call("DELETE", "/endpoints/speaks")
        await bench.until_zero("speaks")


async def _in_turn(ours: Speaker, theirs: Speaker, started: stock.Stock) -> tuple[list[list[float]], list[list[float]]]:
    """Of each (one stream's tokens a second, four streams' together), a round each."""
    found: tuple[list[list[float]], list[list[float]]] = ([], [])
    for number in range(ROUNDS):
        for speaker, paces in zip((ours, theirs), found, strict=True):
            if speaker is theirs:
                started.resume()
            paces.append([pace(await speaker.moments(f"Round {number}", LAST_TOKENS)), await speaker.together()])
            if speaker is theirs:
                started.pause()
        measured.say(f"round {number}: ours {found[0][-1][1]:.1f}, stock {found[1][-1][1]:.1f} tokens/s together")
    return found


def _paces(moments: list[float], ours: list[list[float]], theirs: list[list[float]]) -> dict[str, Any]:
    """Medians. `moments`: of the first answer, which begins on mapped weights."""
    (alone, together), (stock_alone, stock_together) = (
        map(statistics.median, zip(*paces, strict=True)) for paces in (ours, theirs)
    )
    return {
        "decode_mapped_tokens_per_s": round(pace(moments[:MAPPED_TOKENS]), 2),
        "decode_packed_tokens_per_s": round(alone, 2),
        "stock_decode_tokens_per_s": round(stock_alone, 2),
        "settled_tokens_per_s": round(together, 2),
        "stock_settled_tokens_per_s": round(stock_together, 2),
        "settled_share_of_stock": round(
            statistics.median(mine[1] / stocks[1] for mine, stocks in zip(ours, theirs, strict=True)), 3
        ),
    }


def targets(found: dict[str, Any]) -> list[dict[str, Any]]:
    made = []
    if "p50_s" in found:
        made.append(at_most("must", "load phase, p50", found["phases"]["load"]["p50_s"], 0.150))
        made.append(at_most("must", "p50, 1.5 × what tiny must keep to,", found["p50_s"], 1.5 * TINY_MUST_SECONDS))
        if "tiny_p50_s" in found:
            made.append(
                at_most("goal", "p50 over tiny's p50 in the same run", found["p50_s"] / found["tiny_p50_s"], 1.5, "")
            )
    if "weights_pss_over_size" in found:
        made.append(
            at_most(
                "must", "PSS of the weights of two replicas over their size", found["weights_pss_over_size"], 1.05, ""
            )
        )
    if "settled_share_of_stock" in found:
        made.append(
            at_least(
                "must", "settled tokens/s over stock's, median of rounds in turn", found["settled_share_of_stock"], 0.95
            )
        )
    return made
