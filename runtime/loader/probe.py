"""One loader, one file, timed: what `pilotlight bench coldstart --loaders` runs in the environment of each loader.

    python -P probe.py LOADER FILE ROUNDS OWN_FILE

Libraries are imported before the clock starts, and each round runs in a fork of its own, which has loaded a tiny file
before. So no round pays what a loader sets up once, and none finds memory an earlier one has already faulted in. A
round is timed until every tensor is there and each of its pages was touched once. First the page cache is warm (all of
the file was just read), then the file's pages are dropped (`posix_fadvise` after `fsync`). It prints a line of JSON a
round, and what a loader says when it fails. It uses nothing of ours unless it is ours that is measured.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

PAGE = 4096  # bytes
CHUNK = 8 << 20  # bytes of one read
THREADS = 8

Load = Callable[[], "dict[str, Any]"]


def safetensors_mapped(file: str) -> Load:
    from safetensors import safe_open

    def load() -> dict[str, Any]:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118

    return load


def safetensors_copied(file: str) -> Load:
    mapped = safetensors_mapped(file)
    return lambda: {name: tensor.clone() for name, tensor in mapped().items()}


def vllm_default(file: str) -> Load:
    """vLLM copies each tensor its iterator yields into a parameter: so does this."""
    import torch
    from vllm.model_executor.model_loader.weight_utils import safetensors_weights_iterator

    def load() -> dict[str, Any]:
        return {
            name: torch.empty_like(tensor).copy_(tensor) for name, tensor in safetensors_weights_iterator([file], False)
        }

    return load


def runai(file: str) -> Load:
    from runai_model_streamer import SafetensorsStreamer  # type: ignore[import-not-found]

    def load() -> dict[str, Any]:
        with SafetensorsStreamer() as streamer:
            streamer.stream_file(file)
            return dict(streamer.get_tensors())

    return load


def fastsafetensors(file: str, device: str = "cpu") -> Load:
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup  # type: ignore[import-not-found]

    def load() -> dict[str, Any]:
        loader = SafeTensorsFileLoader(SingleGroup(), device, nogds=True)
        loader.add_filenames({0: [file]})
        buffer = loader.copy_files_to_device()
        return {name: buffer.get_tensor(name) for name in buffer.key_to_rank_lidx}

    return load


def tensorizer(own_file: str) -> Load:
    from tensorizer import TensorDeserializer  # type: ignore[import-not-found]

    return lambda: dict(TensorDeserializer(own_file, device="cpu", num_readers=THREADS))


def serialise(file: str, own_file: str) -> None:
    """Tensorizer reads a format of its own; what it makes of the same tensors is what it is measured on."""
    from tensorizer import TensorSerializer

    serializer = TensorSerializer(own_file)
    serializer.write_state_dict(safetensors_mapped(file)())
    serializer.close()


def preadv(file: str) -> Load:
    """No loader: what the machine reads into fresh memory in parallel, for comparison."""
    import torch

    def load() -> dict[str, Any]:
        size = Path(file).stat().st_size
        buffer = torch.empty(size, dtype=torch.uint8)
        view = memoryview(buffer.numpy())  # type: ignore[arg-type]
        with open(file, "rb") as opened, ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda at: os.preadv(opened.fileno(), [view[at : at + CHUNK]], at), range(0, size, CHUNK)))
        return {"file": buffer}

    return load


def baked_mapped(own_file: str) -> Load:
    """Ours on CPU: the baked copy, mapped, as `mapped.py` maps it."""
    import torch

    from runtime.loader.bake import read_layout

    def load() -> dict[str, Any]:
        layout = read_layout(Path(own_file))
        with open(own_file, "rb") as opened:
            mapped = mmap.mmap(opened.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        mapped.madvise(mmap.MADV_WILLNEED)
        return {
            piece.name: torch.frombuffer(mapped, dtype=torch.uint8, count=piece.size, offset=piece.begin)
            for piece in layout.pieces
        }

    return load


def bake_copy(file: str, own_file: str) -> None:
    """The same tensors, laid out as baked copies are."""
    from runtime.loader import bake
    from snapshots.safetensors_header import read_header

    tensors = read_header(Path(file)).tensors
    layout = bake.plan((tensor.name, tensor.dtype, tensor.shape, tensor.end - tensor.begin) for tensor in tensors)
    places = {tensor.name: tensor for tensor in tensors}
    with (
        open(file, "rb") as opened,
        mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped,
        memoryview(mapped) as view,
    ):
        Path(own_file).parent.mkdir(parents=True, exist_ok=True)
        baking = bake.Baking(Path(own_file), layout)
        for piece in layout.pieces:
            baking.map[piece.begin : piece.begin + piece.size] = view[places[piece.name].begin : places[piece.name].end]
        baking.finish()


def ring(file: str, device: str = "cpu") -> Load:
    import torch

    from runtime.loader.device import device_of
    from runtime.loader.ring import plan_files, stream

    def load() -> dict[str, Any]:
        found = dict(stream(plan_files([Path(file)]), device_of(torch.device(device))))
        if device != "cpu":
            torch.cuda.synchronize()
        return found

    return load


def pinned_copy(file: str) -> Load:
    """No loader: as many bytes as the file has from pinned memory to the GPU, the bus's own pace."""
    import torch

    pinned: list[Any] = []  # made in the fork, before its clock starts

    def load() -> dict[str, Any]:
        if not pinned:
            pinned.extend(
                (
                    torch.empty(256 << 20, dtype=torch.uint8, pin_memory=True),
                    torch.empty(256 << 20, dtype=torch.uint8, device="cuda"),
                )
            )
            return {}
        source, target = pinned
        left = Path(file).stat().st_size
        while left > 0:
            part = min(left, source.numel())
            target[:part].copy_(source[:part], non_blocking=True)
            left -= part
        torch.cuda.synchronize()
        return {}

    return load


def safetensors_cuda(file: str) -> Load:
    from safetensors.torch import load_file

    return lambda: load_file(file, device="cuda:0")


LOADERS: dict[str, tuple[Callable[[str], Load], Callable[[str, str], None] | None]] = {
    "baked copy, mapped": (baked_mapped, bake_copy),
    "ring, to memory": (ring, None),
    "safetensors, mapped": (safetensors_mapped, None),
    "safetensors, copied": (safetensors_copied, None),
    "runai-model-streamer": (runai, None),
    "fastsafetensors": (fastsafetensors, None),
    "tensorizer": (tensorizer, serialise),
    "vLLM's default loader": (vllm_default, None),
    "parallel preadv, no loader": (preadv, None),
    "ring, to the GPU": (lambda file: ring(file, "cuda"), None),
    "pinned copy, no loader": (pinned_copy, None),
    "safetensors, to the GPU": (safetensors_cuda, None),
    "fastsafetensors, to the GPU": (lambda file: fastsafetensors(file, "cuda:0"), None),
}
ON_GPU = ("ring, to the GPU", "pinned copy, no loader", "safetensors, to the GPU", "fastsafetensors, to the GPU")


def touch(tensors: dict[str, Any]) -> tuple[int, int]:
    """Read one byte of every page of every tensor: (bytes, what they add up to)."""
    import torch

    size = total = 0
    for tensor in tensors.values():
        size += tensor.numel() * tensor.element_size()
        if tensor.numel():
            total += int(tensor.reshape(-1).view(torch.uint8)[::PAGE].sum(dtype=torch.int64))
    return size, total


def drop(file: str) -> None:
    """Take a file's pages out of the page cache."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def warm(file: str) -> None:
    with open(file, "rb", buffering=0) as opened:
        buffer = bytearray(CHUNK)
        while opened.readinto(buffer):
            pass


def tiny_file(file: Path) -> str:
    """A valid safetensors file of one small tensor."""
    header = json.dumps({"tiny": {"dtype": "BF16", "shape": [PAGE], "data_offsets": [0, 2 * PAGE]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(2 * PAGE))
    return str(file)


def measured(first: Load, load: Load, *, on_gpu: bool) -> dict[str, Any]:
    first()
    if on_gpu:
        import torch

        torch.cuda.synchronize()
        load()  # memory is pinned, and PyTorch's allocators have theirs, as in an engine that loads its second model
    begin = time.perf_counter()
    tensors = load()
    size, total = (0, 0) if on_gpu else touch(tensors)  # on a GPU there are no pages to fault in
    return {"seconds": time.perf_counter() - begin, "bytes": size, "sum": total}


def in_fork(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` gives in a fork of this process, or the error it ended with."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            answer = work()
        except BaseException as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        text = file.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {"error": f"it ended with {os.waitstatus_to_exitcode(status)}"}


def main(name: str, file: str, rounds: str, own_file: str) -> None:
    make, prepare = LOADERS[name]
    on_gpu = name in ON_GPU
    try:
        import torch  # noqa: F401 - before the clock starts

        tiny, own_tiny = tiny_file(Path(f"{own_file}-tiny")), f"{own_file}-own-tiny"
        if prepare:
            prepare(file, own_file)
            prepare(tiny, own_tiny)
        load, first = make(own_file if prepare else file), make(own_tiny if prepare else tiny)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return
    for number in range(int(rounds)):
        for cache, ready in (("warm", warm), ("cold", drop)):
            if on_gpu and cache == "cold":
                continue  # the disk would be measured, not the way to the GPU
            ready(own_file if prepare else file)
            print(
                json.dumps({"round": number, "cache": cache, **in_fork(lambda: measured(first, load, on_gpu=on_gpu))}),
                flush=True,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
