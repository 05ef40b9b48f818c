"""`pilotlight bench coldstart`: wakes of an endpoint from zero, as a client sees them, phase by phase; stock vLLM beside them.

Every wake is asked over a fresh TLS connection, from before it is opened to the first token of content; the phases are
read from the settled row. Stock is vLLM's own server with the same snapshot and the same context and cache, from the start
of its process to its first token over plain HTTP, started between the wakes, with the machine otherwise idle.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from pilotlight.cli.api import Api, ApiError

QUESTION = "What is Pilotlight?"
REST_SECONDS = 0.5  # after a replica's end the kernel still gives its memory back


class BenchFailed(ApiError):
    """A wake that was none, or gave no token; the text says which."""


def coldstart(api: Api, name: str, key: str, *, wakes: int, stock: Callable[[], float] | None, stock_starts: int) -> dict[str, Any]:
    """Measure; returns what `summary` says. Raises BenchFailed, ApiError."""
    ours: list[dict[str, float]] = []
    others: list[float] = []
    every = max(1, wakes // stock_starts) if stock and stock_starts else wakes + 1
    for number in range(1, wakes + 1):
        ours.append(wake(api, name, key))
        _say(f"wake {number}: {ours[-1]['seconds']:.3f} s")
        if stock and number % every == 0 and len(others) < stock_starts:
            until_zero(api, name)
            others.append(stock())
            _say(f"stock: {others[-1]:.2f} s")
    return summary(ours, others)


def wake(api: Api, name: str, key: str) -> dict[str, float]:
    """One wake from zero: {"seconds": …, phase: seconds…}. Raises BenchFailed."""
    until_zero(api, name)
    time.sleep(REST_SECONDS)
    seconds, request_id = first_token(api, name, key)
    row = settled(api, request_id)
    if row["start"] != "cold":
        raise BenchFailed(f"request {request_id} found {name} awake: somebody else calls it")
    return {"seconds": seconds} | {phase["name"]: phase["seconds"] for phase in row["phases"]}


def first_token(api: Api, name: str, key: str, question: str = QUESTION) -> tuple[float, str]:
    """Seconds from before the connection is opened to the first content token, and the request's id. Raises BenchFailed, HTTPError."""
    body = {"messages": [{"role": "user", "content": question}], "stream": True, "max_tokens": 16, "temperature": 0}
    context = ssl.create_default_context(cafile=api.ca_file)
    begin = time.monotonic()
    with httpx.Client(verify=context, timeout=300, trust_env=False) as client:
        url, headers = f"{api.url}/e/{name}/v1/chat/completions", {"authorization": f"Bearer {key}"}
        with client.stream("POST", url, json=body, headers=headers) as answer:
            took = _first_content(answer.iter_lines(), begin)
            if answer.status_code != 200 or took is None:
                raise BenchFailed(f"a call of {name} gave HTTP {answer.status_code} and no token")
            return took, answer.headers["x-request-id"]


def _first_content(lines: Iterator[str], begin: float) -> float | None:
    took = None
    for line in lines:
        if took is None and '"content":"' in line and '"content":""' not in line:
            took = time.monotonic() - begin
    return took


def until_zero(api: Api, name: str, seconds: float = 600) -> None:
    """Wait until the endpoint has no replica. Raises BenchFailed."""
    deadline = time.monotonic() + seconds
    while any(
        revision["replicas"]
        for endpoint in api.call("GET", "/status")["endpoints"]
        if endpoint["name"] == name
        for revision in endpoint["revisions"]
    ):
        if time.monotonic() > deadline:
            raise BenchFailed(f"{name} did not go to zero in {seconds:g} s: is its idle timeout short, and min_replicas 0?")
        time.sleep(0.1)


def settled(api: Api, request_id: str, seconds: float = 30) -> dict[str, Any]:
    """The usage row of a request once the ledger has written it. Raises ApiError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            row: dict[str, Any] = api.call("GET", f"/requests/{request_id}")
            return row
        except ApiError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def stock_first_token(model: Path, *, kv_cache_bytes: int, max_model_len: int) -> float:
    """Seconds from the start of stock vLLM's server to its first token. Raises BenchFailed when it ends before."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", "m"]
    command += ["--enforce-eager", "--kv-cache-memory-bytes", str(kv_cache_bytes), "--max-model-len", str(max_model_len)]
    command += ["--disable-fastapi-docs", "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    kept = {name: value for name, value in os.environ.items() if name not in ("VLLM_CPU_KVCACHE_SPACE", "PYTHONDONTWRITEBYTECODE")}
    memory = set(os.listdir("/dev/shm"))
    begin = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=kept | quiet, stdout=log, stderr=log, start_new_session=True)
        try:
            return _poll_stock(process, port, begin)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for name in set(os.listdir("/dev/shm")) - memory:  # stock leaves its segments behind
                Path("/dev/shm", name).unlink(missing_ok=True)


def _poll_stock(process: subprocess.Popen[bytes], port: int, begin: float) -> float:
    body = {"model": "m", "messages": [{"role": "user", "content": QUESTION}], "stream": True, "max_tokens": 16, "temperature": 0}
    with httpx.Client(timeout=300, trust_env=False) as client:
        while True:
            if process.poll() is not None:
                raise BenchFailed(f"stock vLLM ended with {process.returncode} before it answered")
            try:
                with client.stream("POST", f"http://127.0.0.1:{port}/v1/chat/completions", json=body) as answer:
                    if (took := _first_content(answer.iter_lines(), begin)) is not None:
                        return took
            except httpx.HTTPError:
                time.sleep(0.005)


def summary(ours: list[dict[str, float]], stock: list[float]) -> dict[str, Any]:
    """p50, p95 and p99 of the whole and of each phase, in seconds; `stock_s` and `ratio` where stock was started."""
    names = sorted(set().union(*ours) - {"seconds"})
    found: dict[str, Any] = {"wakes": len(ours), **percentiles([wake["seconds"] for wake in ours])}
    found["max_s"] = max(wake["seconds"] for wake in ours)
    found["phases"] = {name: percentiles([wake.get(name, 0.0) for wake in ours]) for name in names}
    found["all_s"] = [round(wake["seconds"], 4) for wake in ours]
    if stock:
        found |= {"stock_s": statistics.median(stock), "stock_all_s": stock, "ratio": statistics.median(stock) / found["p50_s"]}
    return found


def percentiles(values: list[float]) -> dict[str, float]:
    """Nearest-rank percentiles, in the unit of the values."""
    ordered = sorted(values)

    def at(share: float) -> float:
        return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]

    return {"p50_s": statistics.median(ordered), "p95_s": at(0.95), "p99_s": at(0.99)}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
