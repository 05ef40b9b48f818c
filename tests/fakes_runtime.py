"""Fakes of what a node's agent and a replica have: a staged snapshot, standbys, and a device to copy weights to."""

from __future__ import annotations

import asyncio
import mmap
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from runtime.control import Fork, LoadOutcome
from runtime.loader.ring import Done
from runtime.node.staging import Staged
from snapshots.safetensors_header import Tensor

Forking = Callable[[socket.socket], Awaitable[None]]


class FakeStaging:
    def __init__(self, folder: Path) -> None:
        self.folder, self.loads = folder, list[tuple[str, LoadOutcome]]()
        (folder / "config.json").write_text("{}")

    async def bring(self, digest: str, copy: str = "") -> Staged:
        verified = asyncio.get_running_loop().create_future()
        verified.set_result(None)
        return Staged(self.folder, verified)

    def loaded(self, digest: str, copy: str, outcome: LoadOutcome) -> None:
        self.loads.append((copy, outcome))


class FakeOrders:
    """Does with each order what it is told to, the last for ever."""

    ready = True

    def __init__(self, *does: Forking) -> None:
        self._does, self.orders = list(does), list[Fork]()

    def done_with(self, replica_id: str) -> None: ...

    async def fork(self, order: Fork, replica_end: socket.socket, *, fresh: bool = False) -> None:
        self.orders.append(order)
        await (self._does.pop(0) if len(self._does) > 1 else self._does[0])(replica_end)


class FakeDevice:
    dtypes = frozenset({"U8", "BF16"})

    def __init__(self, *, lazy: bool = False, breaks: bool = False) -> None:
        self.lazy, self.breaks = lazy, breaks
        self.buffers, self.allocated, self.waited, self.closed = 0, 0, 0, False
        self.copies: list[Copy] = []
        self.lock = threading.Lock()
        self.begun = threading.Semaphore(0)  # copies so far

    def buffer(self, nbytes: int) -> memoryview:
        with self.lock:
            self.buffers += 1
        return memoryview(mmap.mmap(-1, nbytes))

    def block(self, nbytes: int) -> bytearray:
        if self.breaks:
            raise MemoryError("the device is full")
        self.allocated += 1
        return bytearray(nbytes)

    def copy(self, block: bytearray, at: int, content: memoryview) -> Done:
        copy = Copy(self, block, at, content)
        with self.lock:
            self.copies.append(copy)
        if not self.lazy:
            copy.run()
        self.begun.release()
        return copy

    def hand_over(self, block: bytearray, copies: Sequence[Done]) -> None:
        for copy in copies:
            assert isinstance(copy, Copy)
            copy.run()

    def tensor(self, block: bytearray, at: int, tensor: Tensor) -> bytes:
        return bytes(block[at : at + tensor.end - tensor.begin])

    def close(self) -> None:
        self.closed = True


class Copy:
    def __init__(self, device: FakeDevice, block: bytearray, at: int, content: memoryview) -> None:
        self.device, self.block, self.at, self.content = device, block, at, content
        self.ended = threading.Event()

    def run(self) -> None:
        """Only now the slot is looked at, as a device would."""
        with self.device.lock:
            if not self.ended.is_set():
                self.block[self.at : self.at + len(self.content)] = self.content
                self.ended.set()

    def wait(self) -> None:
        self.device.waited += 1
        assert self.ended.wait(WAIT)


WAIT = 10.0  # seconds, at most
