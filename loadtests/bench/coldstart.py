"""From zero to the first token, ours over HTTPS with every process included, and stock vLLM's own server, interleaved.

Stock: `python -m vllm.entrypoints.openai.api_server` with the same model and the same flags, from the start of the
process to the first token of a plain HTTP call, page cache warm. Both are asked the same question.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from loadtests.bench.installation import Bench, free_port, running
from runtime.sizing import decide

QUESTION = "What is Pilotlight?"
IDLE_SECONDS = 0.5


def stock_first_token(model: Path) -> float:
    """Seconds from the start of stock vLLM's server to its first token. Raises RuntimeError when it ends first."""
    port = free_port()
    sizing = decide(json.loads((model / "config.json").read_text()), slots=16, least_bytes=64 << 20, max_model_len=0, memory_bytes=16 << 30)
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", "m"]
    command += ["--enforce-eager", "--max-num-seqs", "16", "--kv-cache-memory-bytes", str(sizing.kv_cache_bytes)]
    command += ["--max-model-len", str(sizing.max_model_len), "--disable-fastapi-docs", "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    kept = {name: value for name, value in os.environ.items() if name not in ("VLLM_CPU_KVCACHE_SPACE", "PYTHONDONTWRITEBYTECODE")}
    memory = set(os.listdir("/dev/shm"))
    begin = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=kept | quiet, stdout=log, stderr=log, start_new_session=True)
        try:
            return _poll_first_token(process, port, begin)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for name in set(os.listdir("/dev/shm")) - memory:  # stock leaves its segments behind
                Path("/dev/shm", name).unlink(missing_ok=True)


def _poll_first_token(process: subprocess.Popen[bytes], port: int, begin: float) -> float:
    body = {"model": "m", "messages": [{"role": "user", "content": QUESTION}], "stream": True, "max_tokens": 16, "temperature": 0}
    with httpx.Client(timeout=120, trust_env=False) as client:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"stock vLLM ended with {process.returncode}")
            try:
                with client.stream("POST", f"http://127.0.0.1:{port}/v1/chat/completions", json=body) as answer:
                    for line in answer.iter_lines():
                        if '"content":"' in line and '"content":""' not in line:
                            return time.monotonic() - begin
            except httpx.HTTPError:
                time.sleep(0.005)


async def wake(bench: Bench, name: str, key: str) -> dict[str, Any]:
    """One wake from zero: {"seconds", phase: seconds…}."""
    await bench.until_zero(name)
    await asyncio.sleep(0.5)  # the dead replica's memory is given back by the kernel meanwhile
    seconds, request_id = await bench.first_token(name, key, QUESTION)
    row = await bench.row(request_id)
    if row["start"] != "cold":
        raise RuntimeError(f"a wake that was not cold: {row}")
    return {"seconds": seconds} | {phase["name"]: phase["seconds"] for phase in row["phases"]}


async def measure(model: Path, *, wakes: int, stock_starts: int) -> dict[str, Any]:
    """Interleave: after every few wakes one stock start. The first wake (page cache, first fork) is counted too."""
    ours: list[dict[str, Any]] = []
    stock: list[float] = []
    async with running() as bench:
        key = await bench.deploy("bench", model, idle_timeout_seconds=IDLE_SECONDS, slots=16)
        every = max(1, wakes // stock_starts) if stock_starts else wakes + 1
        for number in range(wakes):
            ours.append(await wake(bench, "bench", key))
            print(f"wake {number + 1}: {ours[-1]['seconds']:.3f} s", file=sys.stderr, flush=True)
            if (number + 1) % every == 0 and len(stock) < stock_starts:
                await bench.until_zero("bench")
                stock.append(await asyncio.to_thread(stock_first_token, model))
                print(f"stock: {stock[-1]:.2f} s", file=sys.stderr, flush=True)
    return summary(ours, stock)


def summary(ours: list[dict[str, Any]], stock: list[float]) -> dict[str, Any]:
    seconds = sorted(wake["seconds"] for wake in ours)
    phases = {name: statistics.median(wake.get(name, 0.0) for wake in ours) for name in sorted(set().union(*ours) - {"seconds"})}
    found: dict[str, Any] = {
        "wakes": len(seconds),
        "p50_s": statistics.median(seconds),
        "p95_s": seconds[min(len(seconds) - 1, round(0.95 * (len(seconds) - 1)))],
        "max_s": seconds[-1],
        "phases_p50_s": phases,
        "all_s": [wake["seconds"] for wake in ours],
    }
    if stock:
        found |= {"stock_s": statistics.median(stock), "stock_all_s": stock, "ratio": statistics.median(stock) / found["p50_s"]}
    return found
