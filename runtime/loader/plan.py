"""What a load to a device will do, before it does anything: bytes, order, memory. Pure. Step 9.

Tensors are grouped into blocks, runs of one file that become one allocation of device memory each. A block is read in
pieces that begin and end on pages of the file and never cross a multiple of the slot's size. So any piece fits any slot
of the pinned ring, direct reads included. The plan states its peaks, and keeps to its budgets or is refused with what
it would need. `ring.py` obeys it and never asks for memory beyond it. What a model asks for and the files do not have
is an error, and so is what the files have and nobody asked for.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from snapshots.safetensors_header import BITS, Tensor

PAGE = 4096  # bytes; direct reads begin and end on one
SLOT = 8 << 20  # bytes of one slot of the pinned ring, a multiple of PAGE
PINNED = 256 << 20  # bytes: pinning more takes longer than it gains
DEVICE = 2 << 30  # bytes on their way at once, beside the model itself
AHEAD = 3  # blocks on their way while the consumer has one


class PlanError(ValueError):
    """The tensors asked for cannot be loaded like this; the text says what was needed, what was there, and what to
    change.
    """


@dataclass(frozen=True, slots=True)
class Source:
    """One file as it was when its header was read; `state` tells whether it is still the same."""

    path: str
    size: int  # bytes
    state: tuple[int, ...]
    tensors: tuple[Tensor, ...]  # in the order of their data


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes `begin` to `end` of file `source`, and the tensors in them."""

    source: int
    begin: int
    end: int
    tensors: tuple[Tensor, ...]

    @property
    def size(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Read:
    """One piece: read `size` bytes at `begin` of the file into a slot, and copy `used` of them, from `skip` on, to `at`
    in the block.
    """

    block: int
    source: int
    begin: int
    size: int
    skip: int
    used: int
    at: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a load will do: its blocks in order, the reads that fill them, and the peaks of memory. In bytes."""

    sources: tuple[Source, ...]
    blocks: tuple[Block, ...]
    reads: tuple[Read, ...]  # in the order of their blocks, and of the file within one
    slots: int
    slot_bytes: int
    ahead: int  # blocks on their way while the consumer has one

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(block.size for block in self.blocks)

    @property
    def peak_pinned(self) -> int:
        return self.slots * self.slot_bytes

    @property
    def peak_device(self) -> int:
        """Bytes on the device, beside what the consumer keeps of earlier blocks when it has got the next."""
        return peak(self.blocks, self.ahead)


def plan(
    sources: Sequence[Source],
    wanted: Collection[str] | None = None,
    *,
    slot_bytes: int = SLOT,
    pinned_bytes: int = PINNED,
    device_bytes: int = DEVICE,
) -> Plan:
    """Plan to load every tensor of the files, which must be exactly the names `wanted`, where given. Raises
    PlanError.
    """
    if slot_bytes <= 0 or slot_bytes % PAGE:
        raise PlanError(f"a slot of {slot_bytes} bytes is not a whole number of pages: give a multiple of {PAGE}")
    if pinned_bytes < 2 * slot_bytes:
        raise PlanError(
            f"a ring needs two slots of {slot_bytes} bytes, and may pin {pinned_bytes}: allow more, or smaller slots"
        )
    _match(sources, wanted)
    blocks = tuple(_blocks(sources, max(1, device_bytes // (AHEAD + 1))))
    ahead = next((ahead for ahead in range(AHEAD, 0, -1) if peak(blocks, ahead) <= device_bytes), 0)
    if not ahead:
        raise PlanError(
            f"two tensors in a row need {peak(blocks, 1)} bytes of device memory, and {device_bytes} are allowed: allow more"
        )
    reads = tuple(read for number, block in enumerate(blocks) for read in _reads(number, block, slot_bytes))
    return Plan(tuple(sources), blocks, reads, min(pinned_bytes // slot_bytes, max(2, len(reads))), slot_bytes, ahead)


def peak(blocks: Sequence[Block], ahead: int) -> int:
    """The most that `ahead` blocks in a row and the one before them take together, in bytes."""
    sizes = [block.size for block in blocks]
    return max((sum(sizes[begin : begin + ahead + 1]) for begin in range(len(sizes))), default=0)


def _match(sources: Sequence[Source], wanted: Collection[str] | None) -> None:
    found: dict[str, str] = {}
    for source in sources:
        for tensor in source.tensors:
            if tensor.name in found:
                raise PlanError(
                    f"{tensor.name} is in {found[tensor.name]} and in {source.path}: pack the model again from one set of files"
                )
            found[tensor.name] = source.path
    if wanted is None:
        return
    if missing := sorted(set(wanted) - found.keys()):
        raise PlanError(f"the files lack {_some(missing)}, which the model needs")
    if left := sorted(found.keys() - set(wanted)):
        raise PlanError(f"the files have {_some(left)}, which the model has no place for")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _blocks(sources: Sequence[Source], limit: int) -> Iterator[Block]:
    """A new block begins where the last would grow beyond `limit`, and where a tensor would not lie on a multiple of
    its values' size.
    """
    for number, source in enumerate(sources):
        run: list[Tensor] = []
        for tensor in source.tensors:
            if run and (tensor.end - run[0].begin > limit or (tensor.begin - run[0].begin) % _step(tensor.dtype)):
                yield Block(number, run[0].begin, run[-1].end, tuple(run))
                run = []
            run.append(tensor)
        if run:
            yield Block(number, run[0].begin, run[-1].end, tuple(run))


def _step(dtype: str) -> int:
    return math.ceil(BITS[dtype] / 8)


def _reads(number: int, block: Block, slot_bytes: int) -> Iterator[Read]:
    begin = block.begin
    while begin < block.end:
        end = min(block.end, (begin // slot_bytes + 1) * slot_bytes)
        aligned = begin // PAGE * PAGE
        size = -(-end // PAGE) * PAGE - aligned  # the file may end before: what is read beyond `end` is not used
        yield Read(number, block.source, aligned, size, begin - aligned, end - begin, begin - block.begin)
        begin = end
