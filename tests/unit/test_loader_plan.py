"""A load's plan: every byte of every tensor once, in pages, in order, within its budgets; and what it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.loader.plan import PAGE, Plan, PlanError, Source, peak, plan
from snapshots.safetensors_header import BITS, Tensor

SLOT = 2 * PAGE
dtypes = st.sampled_from(["BF16", "F32", "U8", "F64"])
files = st.lists(st.lists(st.tuples(dtypes, st.integers(0, 6000)), max_size=8), min_size=1, max_size=3)


def sources(shapes: list[list[tuple[str, int]]], first: int = 137) -> list[Source]:
    found = []
    for number, tensors in enumerate(shapes):
        listed, begin = [], first
        for index, (dtype, length) in enumerate(tensors):
            end = begin + length * BITS[dtype] // 8
            listed.append(Tensor(f"{number}.{index}", dtype, (length,), begin, end))
            begin = end
        found.append(Source(f"/models/{number}.safetensors", begin, (number, begin), tuple(listed)))
    return found


def one(*lengths: int) -> list[Source]:
    return sources([[("U8", length) for length in lengths]])


@given(shapes=files, first=st.integers(9, 5000))
def test_every_byte_of_every_tensor_is_read_once_and_in_order(shapes: list[list[tuple[str, int]]], first: int) -> None:
    given_files = sources(shapes, first)
    made = plan(given_files, slot_bytes=SLOT, pinned_bytes=8 * SLOT)
    names = [tensor.name for block in made.blocks for tensor in block.tensors]
    assert names == [tensor.name for source in given_files for tensor in source.tensors]
    assert made.size == sum(source.size - first for source in given_files)
    for number, block in enumerate(made.blocks):
        covered = block.begin
        for read in (read for read in made.reads if read.block == number):
            assert (read.source, read.at) == (block.source, covered - block.begin)
            assert read.begin + read.skip == covered
            assert read.begin % PAGE == read.size % PAGE == 0
            assert read.skip + read.used <= read.size <= SLOT
            covered += read.used
        assert covered == block.end
        for tensor in block.tensors:
            assert block.begin <= tensor.begin <= tensor.end <= block.end
            assert (tensor.begin - block.begin) * 8 % BITS[tensor.dtype] == 0
    assert [read.block for read in made.reads] == sorted(read.block for read in made.reads)


@given(shapes=files, budget=st.integers(0, 200_000))
def test_a_plan_keeps_to_its_budgets_or_is_refused(shapes: list[list[tuple[str, int]]], budget: int) -> None:
    given_files = sources(shapes)
    try:
        made = plan(given_files, slot_bytes=SLOT, pinned_bytes=budget, device_bytes=budget)
    except PlanError as error:
        largest = max(
            (end - begin for source in given_files for *_, begin, end in map(_places, source.tensors)), default=0
        )
        assert budget < 2 * SLOT or budget < 2 * largest or "two tensors in a row" in str(error)
        return
    assert made.peak_pinned <= budget
    assert made.peak_device == peak(made.blocks, made.ahead) <= budget
    assert made.ahead >= 1


def _places(tensor: Tensor) -> tuple[int, int]:
    return tensor.begin, tensor.end


def test_a_large_tensor_takes_the_place_of_what_is_ahead() -> None:
    assert plan(one(1000, 1000, 1000, 1000, 1000), device_bytes=4000).ahead == 3
    assert plan(one(1000, 2500, 1000, 1000), device_bytes=4500).ahead == 2
    with pytest.raises(PlanError, match="two tensors in a row need 3500 bytes of device memory, and 3400 are allowed"):
        plan(one(1000, 2500), device_bytes=3400)


@given(lengths=st.lists(st.integers(0, 6000), min_size=1, max_size=12))
def test_two_of_the_largest_tensor_are_always_room_enough(lengths: list[int]) -> None:
    budget = max(1, 2 * max(lengths))
    assert plan(one(*lengths), device_bytes=budget).peak_device <= budget


def test_what_is_wanted_and_what_is_there_must_be_the_same() -> None:
    given_files = one(10, 10)
    assert _names(plan(given_files, {"0.0", "0.1"})) == ["0.0", "0.1"]
    with pytest.raises(PlanError, match=r"the files lack 0\.2, 0\.3, 0\.4 and 1 more, which the model needs"):
        plan(given_files, [f"0.{number}" for number in range(6)])
    with pytest.raises(PlanError, match=r"the files have 0\.1, which the model has no place for"):
        plan(given_files, ["0.0"])


def _names(made: Plan) -> list[str]:
    return [tensor.name for block in made.blocks for tensor in block.tensors]


def test_a_name_in_two_files_is_refused() -> None:
    (source,) = one(10)
    with pytest.raises(PlanError, match=r"0\.0 is in /models/0\.safetensors and in /models/1\.safetensors"):
        plan([source, Source("/models/1.safetensors", source.size, (1,), source.tensors)])


@pytest.mark.parametrize(
    ("slot", "pinned", "says"), [(5000, 1 << 20, "is not a whole number of pages"), (PAGE, PAGE, "needs two slots")]
)
def test_a_ring_that_cannot_work_is_refused(slot: int, pinned: int, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        plan(one(10), slot_bytes=slot, pinned_bytes=pinned)
