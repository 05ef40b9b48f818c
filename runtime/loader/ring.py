"""The ring: reads, copies to the device and the consumer's work on tensors, all at once. Step 9, phase `load`.

1. Reader threads take the plan's pieces in order. Each has slots of its own and reads into one while the device still
   copies from its others. The kernel copies from the page cache or the disk without our interpreter lock.
2. A block's memory is asked for with its first piece, and no block further ahead than the plan says. A slow consumer
   stops the reading, so that the plan's peak is the peak.
3. The consumer gets a block's tensors when all its copies were begun, and its own work is ordered behind them. Tensors
   are views of memory that is written once, so they may be kept or dropped at will.
4. Whatever fails in a reader (a read that comes short, a full device) is raised at the consumer. A file that is not the
   planned one, at the beginning or before its last block is handed over, is an error.
   Nobody knows then what was read.

Whoever leaves early stops the readers, and the device has let go of the slots before they are freed.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from pilotlight import cgroups
from runtime.loader.plan import DEVICE, Block, Plan, Read, Source, plan
from snapshots.safetensors_header import Tensor, read_header

log = logging.getLogger("vllm.pilotlight")

THREADS = 16  # at most: with two slots each, reading keeps up with the bus

Memory = TypeVar("Memory")
Result = TypeVar("Result", covariant=True)
Processed = TypeVar("Processed")


class LoadError(Exception):
    """The files do not hold what was planned, or no longer; the text names the file and what to do."""


class Done(Protocol):
    """A copy that was begun."""

    def wait(self) -> None:
        """Return when the buffer it copies from may be written again."""


class Device(Protocol[Memory, Result]):
    """Where blocks and tensors live. All but `hand_over`, `tensor` and `close` are called by the readers, at once."""

    dtypes: frozenset[str]

    def buffer(self, nbytes: int) -> memoryview:
        """Page-aligned host memory to read into; its owner drops it after `close`."""

    def block(self, nbytes: int) -> Memory:
        """Fresh memory for a block, never one that somebody may still look at."""

    def copy(self, block: Memory, at: int, content: memoryview) -> Done:
        """Begin to copy `content`, a part of one of the buffers, to byte `at` of the block."""

    def hand_over(self, block: Memory, copies: Sequence[Done]) -> None:
        """What the calling thread does with the block from now on comes after these copies."""

    def tensor(self, block: Memory, at: int, tensor: Tensor) -> Result:
        """The tensor whose bytes begin at `at` of the block."""

    def close(self) -> None:
        """Return when nothing that was begun uses a buffer any more."""


def describe(file: Path) -> Source:
    """A file's tensors, and the state it is in. Raises HeaderError, OSError."""
    status = file.stat()
    return Source(str(file), status.st_size, state_of(status), read_header(file).tensors)


def state_of(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def plan_files(files: Sequence[Path], wanted: Collection[str] | None = None) -> Plan:
    """A plan for whole files, in the order given, with room for their largest tensors. Raises PlanError, HeaderError,
    OSError.

    `wanted`: what their index names. A file may have more, which vLLM loads as well.
    """
    sources = [describe(file) for file in files]
    if wanted is not None and (
        more := sorted({tensor.name for source in sources for tensor in source.tensors} - set(wanted))
    ):
        log.warning(
            "the files have %s (of %d in all), which their index does not name: loaded as well", more[0], len(more)
        )
        wanted = {*wanted, *more}
    largest = max((tensor.end - tensor.begin for source in sources for tensor in source.tensors), default=0)
    return plan(sources, wanted, device_bytes=max(DEVICE, 2 * largest))


def load(
    planned: Plan, device: Device[Memory, Result], process: Callable[[str, Result], Processed], *, direct: bool = False
) -> dict[str, Processed]:
    """Every tensor through `process`, which runs while the next are on their way. Raises LoadError, OSError."""
    return {name: process(name, tensor) for name, tensor in stream(planned, device, direct=direct)}


def stream(
    planned: Plan, device: Device[Memory, Result], *, threads: int = 0, direct: bool = False
) -> Generator[tuple[str, Result], None, None]:
    """Every tensor, in the plan's order, on the device, which is closed at the end. Raises LoadError, OSError.

    `direct`: past the page cache, where the file system can. `threads`: 0 chooses.
    """
    ring = Ring(planned, device, threads=threads or min(THREADS, 2 * cgroups.cores()), direct=direct)
    try:
        for block, memory in ring.blocks():
            for tensor in block.tensors:
                yield tensor.name, device.tensor(memory, tensor.begin - block.begin, tensor)
            del memory
    finally:
        ring.close()


class Ring(Generic[Memory]):
    """The reader threads, their pinned slots, and the blocks on their way to the consumer."""

    def __init__(self, planned: Plan, device: Device[Memory, object], *, threads: int, direct: bool = False) -> None:
        self._plan, self._device = planned, device
        self._turn = threading.Condition()
        self._next = 0  # read to take
        self._handed = 0  # blocks the consumer has got; it lets go of one when it gets the next
        self._memory: dict[int, Memory] = {}  # of blocks on their way
        self._copies: dict[int, list[Done]] = {}
        self._buffers: list[memoryview] = []  # all slots: the device may look at them until it is closed
        self._left = [0] * len(planned.blocks)  # pieces of each block not yet on their way
        for read in planned.reads:
            self._left[read.block] += 1
        self._error: BaseException | None = None
        self._closing = False
        self._descriptors: list[int] = []
        self._threads: list[threading.Thread] = []
        try:
            if unknown := sorted(
                {tensor.dtype for block in planned.blocks for tensor in block.tensors} - device.dtypes
            ):
                raise LoadError(
                    f"there are tensors of {', '.join(unknown)}, which the device cannot hold: convert the model"
                )
            for source in planned.sources:
                self._descriptors.append(_open(source, direct))
            self._start(max(1, min(threads, planned.slots // 2)))
        except BaseException:
            self.close()
            raise

    def _start(self, threads: int) -> None:
        for number in range(threads):
            thread = threading.Thread(
                target=self._run, args=(self._plan.slots // threads,), name=f"reader-{number}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def blocks(self) -> Iterator[tuple[Block, Memory]]:
        """Raises what a reader raised, and LoadError where a file was changed meanwhile."""
        for number, block in enumerate(self._plan.blocks):
            memory = self._arrived(number)
            if number + 1 == len(self._plan.blocks) or self._plan.blocks[number + 1].source != block.source:
                self._unchanged(block.source)  # 4
            yield block, memory
            del memory

    def _arrived(self, number: int) -> Memory:
        """A block's memory, as soon as the calling thread may work on it."""
        with self._turn:
            while self._left[number] and not self._error:
                self._turn.wait()
            if self._error:
                raise self._error
            self._handed = number + 1
            self._turn.notify_all()
            copies = self._copies.pop(number, [])  # none of an empty block
            memory = self._memory.pop(number) if copies else self._device.block(0)
        self._device.hand_over(memory, copies)  # 3
        return memory

    def _unchanged(self, number: int) -> None:
        source = self._plan.sources[number]
        if state_of(os.fstat(self._descriptors[number])) != source.state:
            raise LoadError(f"{source.path} was changed while it was read: load again, and leave snapshots alone")

    def _run(self, count: int) -> None:
        """One reader: its `count` slots in turn, each when the device has copied what was in it before."""
        slots: deque[tuple[memoryview, Done | None]] = deque()
        try:
            while (taken := self._next_read()) is not None:
                read, memory = taken
                slot, copy = slots.popleft() if len(slots) == count else (self._slot(), None)
                if copy is not None:
                    copy.wait()
                self._read(read, slot)  # 1
                copy = self._device.copy(memory, read.at, slot[read.skip : read.skip + read.used])
                slots.append((slot, copy))
                del memory, taken
                with self._turn:
                    self._copies[read.block].append(copy)
                    self._left[read.block] -= 1
                    if not self._left[read.block]:
                        self._turn.notify_all()
        except BaseException as error:
            with self._turn:
                self._error = self._error or error
                self._turn.notify_all()

    def _slot(self) -> memoryview:
        slot = self._device.buffer(self._plan.slot_bytes)
        self._buffers.append(slot)
        return slot

    def _next_read(self) -> tuple[Read, Memory] | None:
        """The next piece, once its block may be on its way; None at the end."""
        with self._turn:
            if self._next == len(self._plan.reads):
                return None
            read = self._plan.reads[self._next]
            self._next += 1
            self._turn.wait_for(lambda: self._closing or self._error or read.block < self._handed + self._plan.ahead)
            if self._closing or self._error:
                return None
            if read.block not in self._memory:  # 2
                self._memory[read.block] = self._device.block(self._plan.blocks[read.block].size)
                self._copies[read.block] = []
            return read, self._memory[read.block]

    def _read(self, read: Read, slot: memoryview) -> None:
        """Raises LoadError where the file ends before what is used."""
        descriptor, got = self._descriptors[read.source], 0
        while got < read.skip + read.used:
            count = os.preadv(descriptor, [slot[got : read.size]], read.begin + got)
            if count == 0:
                path = self._plan.sources[read.source].path
                raise LoadError(
                    f"{path} ends at byte {read.begin + got}, where its header promises more: stage it again"
                )
            got += count

    def close(self) -> None:
        """Stop the readers and wait for them, and for the device."""
        with self._turn:
            self._closing = True
            self._turn.notify_all()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self._memory.clear()
        self._copies.clear()
        self._device.close()
        self._buffers.clear()
        while self._descriptors:
            os.close(self._descriptors.pop())


def _open(source: Source, direct: bool) -> int:
    """Raises LoadError where it is not the file that was planned, OSError."""
    descriptor = _descriptor(source.path, direct)
    if state_of(os.fstat(descriptor)) != source.state:
        os.close(descriptor)
        raise LoadError(f"{source.path} is not the file it was when the load was planned: plan again")
    return descriptor


def _descriptor(path: str, direct: bool) -> int:
    flags = os.O_RDONLY | os.O_CLOEXEC
    if direct:
        try:
            return os.open(path, flags | os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system without direct reads, such as one in memory
                raise
    return os.open(path, flags)
