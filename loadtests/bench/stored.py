"""Wakes of a snapshot that lies only in an object store over loopback HTTP, on a node emptied before each wake.

There are three stores. moto is a complete S3 server: it hands out 0.2 GB/s of a small file, and reads a large one anew
for every part. `object_store.py` is as fast as the kernel, so that everything a wake does beside fetching shows. The
third is the same at the pace of a network.

Beside each wake stands the plain parallel download of the same bytes: ranged reads over as many connections, to the
same disk, nothing checked. What a wake takes beyond it is to be no more than the staged wake of the same run and 15 %
of the download.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from aiobotocore.session import get_session  # type: ignore[import-untyped]

from loadtests.bench.coldstart import IDLE_SECONDS, SLOTS
from loadtests.bench.installation import Bench, running
from loadtests.bench.object_store import BUCKET
from loadtests.bench.parts import Parts
from loadtests.bench.targets import at_most
from pilotlight.cli.bench import coldstart as measured
from pilotlight.ports import free_port
from snapshots.manifest import Manifest, folder_name
from snapshots.pack import pack
from snapshots.store.disk import remove_folder
from snapshots.synth import synth
from snapshots.transfer import push

CONNECTIONS = 8
PIECE = 8 << 20  # bytes of one ranged read
WRITE = 1 << 20  # bytes
NETWORK = 0.3e9  # bytes a second of all connections together: 2.4 Gbit/s
FAST = (sys.executable, "-m", "loadtests.bench.object_store")
LARGE_WAKES = 3  # of the model of 1.2 GB
START_SECONDS = 60.0
DURABLE_SECONDS = 120.0

MOTO = """
import signal, sys
from moto.server import ThreadedMotoServer
ThreadedMotoServer("127.0.0.1", int(sys.argv[1]), verbose=False).start()
signal.pause()
"""


async def measure(model: Path, found: dict[str, Any], *, wakes: int) -> None:
    parts = Parts()
    found["notes"] = [
        f"The download beside it: the same files in ranged reads of {PIECE >> 20} MiB over {CONNECTIONS} connections, written to the same disk, "
        "nothing checked. Node emptied before each: snapshot, baked copy, recorded canary. Medians."
    ]
    found["tables"] = {"seconds": [["model", "MB", "wakes", "wake", "download", "staged", "allowed"]]}
    found["targets"] = []
    with tempfile.TemporaryDirectory(prefix="pl-store-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        store = Path(folder) / "store"
        try:
            tiny = await asyncio.to_thread(pack, model, store)
            with parts.part("moto"):
                async with serving([sys.executable, "-c", MOTO]), running() as bench:
                    await _push(store, tiny)
                    await _one(bench, "tiny, from moto", tiny, wakes, found)
            large = await asyncio.to_thread(
                pack, await asyncio.to_thread(synth, "qwen3-0.6b", Path(folder) / "qwen3-0.6b"), store
            )
            for pace, said in ((NETWORK, f"at {NETWORK / 1e9:g} GB/s"), (0.0, "as fast as it goes")):
                with parts.part(f"a store {said}"):
                    async with serving([*FAST, str(store), str(pace)]), running() as bench:
                        await _one(bench, f"tiny, {said}", tiny, wakes, found)
                        await _one(bench, f"qwen3-0.6b, {said}", large, min(wakes, LARGE_WAKES), found)
        finally:
            remove_folder(store)
    parts.finish()


async def _push(store: Path, manifest: Manifest) -> None:
    async with get_session().create_client("s3") as client:
        await client.create_bucket(Bucket=BUCKET)
    await push(store, manifest.digest, f"s3://{BUCKET}")


async def _one(bench: Bench, title: str, manifest: Manifest, wakes: int, found: dict[str, Any]) -> None:
    name = f"e-{manifest.digest[-8:]}"
    links = await links_to(manifest)
    key = await bench.deploy_digest(name, manifest.digest, idle_timeout_seconds=IDLE_SECONDS, slots=SLOTS)
    stored, downloads = list[dict[str, float]](), list[float]()
    for number in range(wakes + 1):
        await asyncio.to_thread(measured.until_rest, bench.api, name)
        await asyncio.to_thread(empty, bench, manifest)
        downloads.append(await asyncio.to_thread(download, links, bench.paths.state / "plain"))
        stored.append(await asyncio.to_thread(measured.wake, bench.api, name, key))
        measured.say(f"wake {number}: {stored[-1]['seconds']:.3f} s, download {downloads[-1]:.3f} s")
    staged = await asyncio.to_thread(measured.coldstart, bench.api, name, key, wakes=wakes)
    await asyncio.to_thread(measured.until_rest, bench.api, name)
    wake = measured.summary(stored[1:], [])  # the first of each learns the way
    plain = statistics.median(downloads[1:])
    allowed = 1.15 * plain + staged["p50_s"]
    figures = (f"{value:.3f}" for value in (wake["p50_s"], plain, staged["p50_s"], allowed))
    found["tables"]["seconds"].append([title, f"{manifest.size / 1e6:.0f}", str(wakes), *figures])
    found["targets"].append(
        at_most("must", f"{title}: wake over 1.15 × download + staged", wake["p50_s"] / allowed, 1.0, "")
    )
    found[f"{title}, phases from the store, p50 s"] = ", ".join(
        f"{phase} {figures['p50_s']:.3f}" for phase, figures in wake["phases"].items()
    )


def empty(bench: Bench, manifest: Manifest) -> None:
    """Once what was fetched is durable, nothing of the snapshot is left on the node. Raises BenchFailed."""
    name = folder_name(manifest.digest)
    here, stamp = bench.paths.snapshots / name, bench.paths.staged / f"{name}.stamp"
    deadline = time.monotonic() + DURABLE_SECONDS
    while (bench.paths.snapshots / f".pull-{name}").exists() or (here.exists() and not stamp.exists()):
        if time.monotonic() > deadline:
            raise measured.BenchFailed(f"what was fetched is not durable after {DURABLE_SECONDS:g} s")
        time.sleep(0.1)
    remove_folder(here)
    stamp.unlink(missing_ok=True)
    remove_folder(bench.paths.baked / name)
    for canary in bench.paths.canaries.rglob("*"):
        if canary.is_file():
            canary.unlink()


async def links_to(manifest: Manifest) -> list[tuple[SplitResult, int]]:
    """A signed link to each file, and the file's bytes."""
    async with get_session().create_client("s3") as client:
        asked = [
            ({"Bucket": BUCKET, "Key": f"{folder_name(manifest.digest)}/{file.path}"}, file.size)
            for file in manifest.files
        ]
        return [(urlsplit(await client.generate_presigned_url("get_object", what)), size) for what, size in asked]


def download(links: list[tuple[SplitResult, int]], folder: Path) -> float:
    """Seconds that the plain parallel download of these files takes; what was written is removed."""
    folder.mkdir()
    pieces = [(link, begin) for link, size in links for begin in range(0, max(size, 1), PIECE)]
    begin = time.monotonic()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(lambda piece: _piece(piece[0], piece[1], folder), pieces))
    took = time.monotonic() - begin
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return took


def _piece(link: SplitResult, begin: int, folder: Path) -> None:
    connection = http.client.HTTPConnection(link.netloc)
    connection.request("GET", f"{link.path}?{link.query}", headers={"range": f"bytes={begin}-{begin + PIECE - 1}"})
    answer = connection.getresponse()
    if answer.status not in (200, 206):
        raise measured.BenchFailed(f"the store gave {answer.status} for {link.path}")
    descriptor = os.open(folder / link.path.replace("/", "-"), os.O_WRONLY | os.O_CREAT, 0o600)
    buffer = memoryview(bytearray(WRITE))
    while count := answer.readinto(buffer):
        os.pwrite(descriptor, buffer[:count], begin)
        begin += count
    os.close(descriptor)
    connection.close()


@contextlib.asynccontextmanager
async def serving(command: list[str]) -> AsyncIterator[None]:
    """A store, started on a port that is the command's last argument; the environment says, to us and to what we start,
    that it is the origin.
    """
    port = free_port()
    ours = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "PILOTLIGHT_SNAPSHOTS__ORIGIN": f"s3://{BUCKET}",
    }
    before = {name: os.environ.get(name) for name in ours}
    process = subprocess.Popen([*command, str(port)], stderr=subprocess.DEVNULL)  # noqa: ASYNC220
    os.environ.update(ours)
    try:
        async with asyncio.timeout(START_SECONDS):
            while not _listens(port):
                await asyncio.sleep(0.05)  # another program's start: nothing to wait on
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
