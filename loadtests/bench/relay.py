"""What the router's warm path costs: CPU time per request and per relayed chunk, beside nginx, in the same run.

    python -m loadtests.bench.relay [--requests 20000] [--rounds 3] [--json]

One router worker is compared with one nginx worker and vllm-router, where those can be had. All have the same back end,
and the same client with 32 kept-alive connections. The figure is utime + stime of the process under test with all its
threads, divided by requests or chunks. Unlike times, it depends little on what else runs. Medians of the rounds. The
router checks keys, reads bodies, holds, meters and writes durable records. No peer settles those, so `settler.py`
measures that in the same run; the figures have it beside the relay, and in the sum. Added latency is what a target's
percentile has above the back end's own, with FEW connections. vllm-router speaks to its back end over TCP, which is all
it can; the others over a Unix socket.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from activator.wire import EndpointRow, ReplicaRow, RevisionRow
from loadtests.bench import settler
from loadtests.bench.targets import at_least, at_most, line
from loadtests.bench.traffic import CHUNKS, CONNECTIONS, Back, cpu_seconds, load, request
from pilotlight.keys import ensure_pepper, hash_key, mint
from pilotlight.paths import cache_dir, private_folder
from pilotlight.ports import free_port
from pilotlight.settings import Paths
from router.ledger.wire import KeyRow, Policy
from tests.fakes import FakeActivator, FakeLedger

FEW = 4  # connections, where latency is measured
VLLM_ROUTER = "vllm-router==0.1.17"
STREAMS = 64  # where the time between tokens is
CASES = {
    "json": "a 270-byte JSON answer",
    "json4k": "the same, with a 4 KB prompt",
    "stream": f"one of {CHUNKS} relayed SSE chunks",
}

LAUNCH = """
import socket, sys
from pilotlight import logs, settings
from router import worker
from router.edge.listeners import Listeners
logs.configure("router")
worker.run(settings.load(), Listeners(socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=2048)), plain=sys.argv[2] == "plain")
"""

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; user root;
events {{ worker_connections 1024; }}
http {{ access_log off; client_body_temp_path {folder}/t; proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t;
  uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t; keepalive_requests 1000000; client_body_buffer_size 64k;
  upstream back {{ server unix:{folder}/back.sock; keepalive 64; keepalive_requests 1000000; }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://back; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering {buffering}; }} }} }}
"""


@dataclass
class Target:
    name: str
    port: int
    pid: int
    path: str = "/e/tiny/v1/chat/completions"


async def listening(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)  # another program's start: nothing to wait on
                continue
            writer.close()
            return


@contextlib.asynccontextmanager
async def running(arguments: list[str], **environment: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(arguments, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)  # noqa: ASYNC220
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait)


@contextlib.asynccontextmanager
async def router(folder: Path, *, tls: bool) -> AsyncIterator[tuple[Target, str]]:
    paths = Paths(folder / ("tls" if tls else "plain"))
    paths.make()
    key = mint()
    row = KeyRow(
        hash=hash_key(ensure_pepper(paths), key).hex(), key_id="k", org_id="o", endpoint_id="e", scope="inference"
    )
    replica = ReplicaRow(replica_id="p", address=f"unix:{folder}/back.sock", slots=64)
    revision = RevisionRow(revision_id="r", task="generate", replicas=(replica,))
    endpoint = EndpointRow(
        name="tiny", org_id="o", endpoint_id="e", created=1, task="generate", max_held=100, hold_seconds=30, route=(("r", 100),),
        revisions=(revision,),
    )  # fmt: skip
    activator = FakeActivator(paths.address("activator"), endpoint)
    ledger = FakeLedger(paths.address("ledger"), Policy(version=1, keys=(row,)))
    await activator.start()
    await ledger.start()
    port = free_port()
    environment = {"PILOTLIGHT_STATE_DIR": str(paths.state), "PILOTLIGHT_ROUTER__METRICS_PORT": str(free_port(8))}
    async with running([sys.executable, "-c", LAUNCH, str(port), "tls" if tls else "plain"], **environment) as process:
        await listening(port)
        await activator.until(lambda: activator.acknowledged > 0, seconds=20)
        yield Target("router over TLS" if tls else "router", port, process.pid), key
    await activator.stop()
    await ledger.stop()


@contextlib.asynccontextmanager
async def nginx(folder: Path) -> AsyncIterator[Target]:
    port = free_port()
    (folder / "t").mkdir()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, buffering="off"))
    async with running(["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]) as process:
        await listening(port)
        worker = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        yield Target("nginx", port, worker)


@contextlib.asynccontextmanager
async def vllm_router(program: str, back: int) -> AsyncIterator[Target]:
    port, metrics = free_port(), free_port()
    arguments = [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--worker-urls",
        f"http://127.0.0.1:{back}",
        "--policy",
        "round_robin",
    ]
    async with running([program, *arguments, "--prometheus-port", str(metrics), "--log-level", "error"]) as process:
        await listening(port)
        yield Target("vllm-router", port, process.pid, "/v1/chat/completions")


def peer() -> str | None:
    """The program vllm-router: the one on the PATH, else its wheel in a virtual environment of its own; None where
    neither is to be had.
    """
    if found := shutil.which("vllm-router"):
        return found
    folder = private_folder(cache_dir() / "bench-peers")  # a virtual environment, kept between runs
    program = folder / "bin" / "vllm-router"
    if not program.exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)
            subprocess.run(
                [str(folder / "bin" / "pip"), "install", "-q", VLLM_ROUTER],
                check=True,
                capture_output=True,
                timeout=300,
            )
        except (OSError, subprocess.SubprocessError):
            return None
    return str(program)


async def added(target: Target, key: str, direct: str, count: int) -> dict[str, float]:
    """Milliseconds a request takes longer than at the back end itself, at the median and at p99."""
    tls = "TLS" in target.name
    payload = request(key, "json", target.path)
    percentiles = []
    for where in (target.port, direct):
        await load(where, payload, 100, tls=tls and where == target.port, connections=FEW)
        _, taken = await load(where, payload, count, tls=tls and where == target.port, connections=FEW)
        percentiles.append(statistics.quantiles(taken, n=100))
    through, alone = percentiles
    return {"p50_ms": (through[49] - alone[49]) * 1e3, "p99_ms": (through[98] - alone[98]) * 1e3}


async def added_between(target: Target, key: str, direct: str) -> float:
    """Milliseconds that the longest gaps between tokens, at p99, are longer than at the back end itself."""
    tls, payload, p99 = "TLS" in target.name, request(key, "stream", target.path), []
    for where in (target.port, direct):
        gaps = list[float]()
        await load(where, payload, STREAMS * 2, tls=tls and where == target.port, connections=STREAMS, gaps=gaps)
        p99.append(statistics.quantiles(gaps, n=100)[98])
    return (p99[0] - p99[1]) * 1e3


async def cost(target: Target, key: str, case: str, count: int) -> dict[str, float]:
    requests = max(count // CHUNKS, 2 * CONNECTIONS) if case == "stream" else count
    payload = request(key, case, target.path)
    tls = "TLS" in target.name
    await load(target.port, payload, CONNECTIONS if case == "stream" else count // 10, tls=tls)  # warm up
    before = cpu_seconds(target.pid)
    seconds, _ = await load(target.port, payload, requests, tls=tls)
    units = requests * CHUNKS if case == "stream" else requests
    return {"cpu_us": (cpu_seconds(target.pid) - before) / units * 1e6, "per_second": units / seconds}


async def bench(count: int, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    loop = asyncio.get_running_loop()
    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory(prefix="pl") as name:
        folder = Path(name)
        direct = f"{folder}/back.sock"
        back = await loop.create_unix_server(Back, direct)
        tcp_port = free_port()
        tcp = await loop.create_server(Back, "127.0.0.1", tcp_port)
        program = await asyncio.to_thread(peer)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(back.close)
            stack.callback(tcp.close)
            plain, key = await stack.enter_async_context(router(folder, tls=False))
            secure, other_key = await stack.enter_async_context(router(folder, tls=True))
            targets = [(plain, key), (secure, other_key)]
            if shutil.which("nginx"):
                targets.append((await stack.enter_async_context(nginx(folder)), key))
            if program:
                targets.append((await stack.enter_async_context(vllm_router(program, tcp_port)), key))
            for _ in range(rounds):  # interleaved, so that what else the machine does hits all alike
                for target, its_key in targets:
                    for case in CASES:
                        results.setdefault(target.name, {}).setdefault(case, []).append(
                            await cost(target, its_key, case, count)
                        )
                    more = await added(target, its_key, direct, count // 8)
                    more["between_tokens_p99_ms"] = await added_between(target, its_key, direct)
                    results[target.name].setdefault("added", []).append(more)
    return {
        target: {
            case: {field: statistics.median(r[field] for r in runs) for field in runs[0]}
            for case, runs in cases.items()
        }
        for target, cases in results.items()
    }


async def measure() -> dict[str, Any]:
    """For `make bench`: medians of three rounds, flat, and what is asked of them: the ratios to the peers of the same
    run.
    """
    results = await asyncio.to_thread(run, 10_000, 3)
    settling = await settler.measure()
    return figures(results, settling) | {"targets": targets(results, settling)}


def run(count: int, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(bench(count, rounds))


def figures(results: dict[str, dict[str, dict[str, float]]], settling: dict[str, float]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for target, cases in results.items():
        name = target.replace(" ", "_").replace("-", "_")
        for case in CASES:
            flat[f"{case}_cpu_us_{name}"] = round(cases[case]["cpu_us"], 1)
            flat[f"{case}_per_second_{name}"] = round(cases[case]["per_second"])
        for what, milliseconds in cases["added"].items():
            flat[f"added_{what}_{name}"] = round(milliseconds, 3)
    flat |= settling
    flat["json_cpu_us_router_and_settler"] = round(results["router"]["json"]["cpu_us"] + settling["settler_cpu_us"], 1)
    for peer_name in ("nginx", "vllm-router"):
        for case in CASES if peer_name in results else ():
            ratio = results["router"][case]["cpu_us"] / results[peer_name][case]["cpu_us"]
            flat[f"{case}_cpu_ratio_to_{peer_name.replace('-', '_')}"] = round(ratio, 2)
    return flat


def targets(results: dict[str, dict[str, dict[str, float]]], settling: dict[str, float]) -> list[dict[str, Any]]:
    """What was to be reached, per request with the settler's share, per chunk without: a stream settles once."""
    ours, found = results["router"], []
    for case, what in CASES.items():
        cpu = ours[case]["cpu_us"] + (0.0 if case == "stream" else settling["settler_cpu_us"])
        for kind, peer_name, factor in (
            ("must", "vllm-router", 1.0),
            ("goal", "nginx", 1.25 if case == "stream" else 1.5),
        ):
            if peer_name in results:
                ratio = cpu / results[peer_name][case]["cpu_us"]
                found.append(
                    at_most(
                        kind, f"CPU of the router, settler included, beside {peer_name}, {what}", ratio, factor, "×"
                    )
                )
    for case, what in CASES.items():
        ratio = results["router over TLS"][case]["cpu_us"] / ours[case]["cpu_us"]
        found.append(at_most("must", f"CPU with TLS beside plain, {what}", ratio, 1.5, "×"))
    gap = ours["added"]["between_tokens_p99_ms"]
    found.append(at_most("must", f"added p99 between tokens at {STREAMS} streams", gap, 1.0, "ms"))
    found.append(at_least("must", "settled records a second", settling["settled_per_second"], 5000))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    results = run(given.requests, given.rounds)
    settling = asyncio.run(settler.measure())
    if given.json:
        print(json.dumps(figures(results, settling), indent=2))
        return
    for case, what in CASES.items():
        print(f"{what}:")
        for target, cases in results.items():
            print(f"  {target:18} {cases[case]['cpu_us']:7.1f} µs CPU   {cases[case]['per_second']:9.0f}/s")
    print("added to the back end's own, in ms: latency at p50 and p99, time between tokens at p99:")
    for target, cases in results.items():
        print(f"  {target:18} {'  '.join(f'{milliseconds:7.3f}' for milliseconds in cases['added'].values())}")
    for name, value in settling.items():
        print(f"{name}: {value}")
    for asked in targets(results, settling):
        print(line(asked))
    for name in ("nginx", "vllm-router"):
        if name not in results:
            print(f"{name} is not installed: it was not measured", file=sys.stderr)


if __name__ == "__main__":
    main()
