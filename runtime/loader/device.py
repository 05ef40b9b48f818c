"""Where a load goes: to a GPU over a stream of its own, or to plain memory where there is none. Step 9, phase `load`.

Both are devices for `ring.py`. Nothing here touches CUDA before a `CudaDevice` is made, which only a replica's engine
process does. A standby that had initialised it could not fork any more.

A block is allocated on the copy stream and handed over to the consumer's. That stream waits for the block's copies, and
PyTorch's allocator gives the memory to nobody else before the consumer's work on it is done. No block is ever written
twice, so its tensors, which are views of it, may be kept.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from typing import Any

import torch

from runtime.loader.ring import Done
from snapshots.safetensors_header import Tensor

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "U16": torch.uint16, "I32": torch.int32,
    "U32": torch.uint32, "I64": torch.int64, "U64": torch.uint64, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32,
    "F64": torch.float64, "C64": torch.complex64, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz, "F8_E8M0": torch.float8_e8m0fnu,
}  # fmt: skip


class HostDevice:
    """Plain memory."""

    dtypes = frozenset(DTYPES)

    def buffer(self, nbytes: int) -> memoryview:
        return memoryview(mmap.mmap(-1, nbytes))

    def block(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8)

    def copy(self, block: torch.Tensor, at: int, content: memoryview) -> Done:
        block[at : at + len(content)] = torch.frombuffer(content, dtype=torch.uint8)
        return _Copied()

    def hand_over(self, block: torch.Tensor, copies: Sequence[Done]) -> None:
        pass

    def tensor(self, block: torch.Tensor, at: int, tensor: Tensor) -> torch.Tensor:
        return _view(block, at, tensor)

    def close(self) -> None:
        pass


class _Copied:
    def wait(self) -> None:
        pass


class CudaDevice:
    """One GPU. Buffers are pinned, so that copies run beside reads and beside the consumer's kernels."""

    dtypes = frozenset(DTYPES)

    def __init__(self, device: torch.device) -> None:
        self._device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        self._stream: Any = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def buffer(self, nbytes: int) -> memoryview:
        pinned: Any = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy()
        return memoryview(pinned)

    def block(self, nbytes: int) -> torch.Tensor:
        with torch.cuda.stream(self._stream):
            return torch.empty(nbytes, dtype=torch.uint8, device=self._device)

    def copy(self, block: torch.Tensor, at: int, content: memoryview) -> Done:
        source = torch.frombuffer(content, dtype=torch.uint8)  # a view: CUDA knows its address as pinned
        with torch.cuda.stream(self._stream):
            block[at : at + len(content)].copy_(source, non_blocking=True)
            event: Any = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # who waits sleeps: the cores are for reading
            event.record(self._stream)
        return _Event(event)

    def hand_over(self, block: torch.Tensor, copies: Sequence[Done]) -> None:
        consumer = torch.cuda.current_stream(self._device)
        for copy in copies:
            assert isinstance(copy, _Event)
            consumer.wait_event(copy.event)
        block.record_stream(consumer)

    def tensor(self, block: torch.Tensor, at: int, tensor: Tensor) -> torch.Tensor:
        return _view(block, at, tensor)

    def close(self) -> None:
        self._stream.synchronize()


class _Event:
    def __init__(self, event: Any) -> None:
        self.event = event

    def wait(self) -> None:
        self.event.synchronize()


def _view(block: torch.Tensor, at: int, tensor: Tensor) -> torch.Tensor:
    return block[at : at + tensor.end - tensor.begin].view(DTYPES[tensor.dtype]).view(tensor.shape)


def device_of(device: torch.device) -> HostDevice | CudaDevice:
    return CudaDevice(device) if device.type == "cuda" else HostDevice()


def unpin() -> None:
    """Give pinned buffers nobody uses any more back to the system: PyTorch would keep them, locked, as long as the
    process lives.
    """
    empty: Callable[[], None] | None = getattr(torch._C, "_host_emptyCache", None)  # builds for CUDA have it
    if empty is not None:
        empty()
