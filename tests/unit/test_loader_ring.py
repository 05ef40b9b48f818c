"""The ring on a device that is told when its copies end: order, backpressure, errors, short reads, files that change
underfoot.
"""

from __future__ import annotations

import gc
import json
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.loader.plan import PAGE, Plan, PlanError, plan
from runtime.loader.ring import LoadError, describe, load, plan_files, stream
from snapshots.errors import HeaderError
from tests.fakes_runtime import WAIT, FakeDevice

SLOT = PAGE


@pytest.fixture
def content() -> dict[str, bytes]:
    dice = random.Random(5)
    return {
        f"t{number}": dice.randbytes(size)
        for number, size in enumerate((10, 3 * PAGE, 5000, 0, 1, 2 * PAGE, PAGE, 9000))
    }


@pytest.fixture
def file(tmp_path: Path, content: dict[str, bytes]) -> Path:
    return write(tmp_path / "a.safetensors", content)


def write(file: Path, content: dict[str, bytes], dtype: str = "U8") -> Path:
    table, offset = {}, 0
    for name, data in content.items():
        table[name] = {"dtype": dtype, "shape": [len(data)], "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    header = json.dumps(table).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"".join(content.values()))
    return file


def small(*files: Path, device_bytes: int = 20_000) -> Plan:
    return plan([describe(file) for file in files], slot_bytes=SLOT, pinned_bytes=4 * SLOT, device_bytes=device_bytes)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    gc.collect()  # what an earlier test forgot must not be closed in the middle of this one
    descriptors = len(os.listdir("/proc/self/fd"))
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reader-")]
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("direct", [False, True])
def test_all_tensors_arrive_in_order_and_whole(
    tmp_path: Path, file: Path, content: dict[str, bytes], threads: int, direct: bool
) -> None:
    more = write(tmp_path / "b.safetensors", {"z": b"z" * 7000})
    planned, device = small(file, more), FakeDevice()
    found = list(stream(planned, device, threads=threads, direct=direct))
    assert found == [*content.items(), ("z", b"z" * 7000)]
    assert device.buffers <= planned.slots
    assert device.closed


def test_a_slot_is_written_again_only_when_its_copy_ended(file: Path, content: dict[str, bytes]) -> None:
    """Copies look at their slots as late as can be: when the readers stand still. A slot written too early changes a
    tensor.
    """
    planned, device = small(file, device_bytes=1 << 20), FakeDevice(lazy=True)
    assert len(planned.blocks) == 1
    assert len(planned.reads) > 2 * planned.slots

    def end_late() -> None:
        for number in range(len(planned.reads)):
            while device.begun.acquire(timeout=0.01) or len(device.copies) <= number:
                pass  # no reader has got on for a moment, and this one has begun
            device.copies[number].run()

    ending = threading.Thread(target=end_late)
    ending.start()
    assert dict(stream(planned, device, threads=1)) == content
    ending.join(WAIT)
    assert device.waited == len(planned.reads) - planned.slots


def test_no_more_blocks_are_on_their_way_than_planned(file: Path) -> None:
    planned, device = small(file), FakeDevice()
    tensors = stream(planned, device, threads=2)
    next(tensors)
    before = sum(read.block <= planned.ahead for read in planned.reads)
    for _ in range(before):
        assert device.begun.acquire(timeout=WAIT)
    assert not device.begun.acquire(timeout=0.05)  # the readers stand still
    assert device.allocated == planned.ahead + 1 < len(planned.blocks)
    tensors.close()
    assert device.closed


def test_processing_runs_beside_the_readers(file: Path, content: dict[str, bytes]) -> None:
    device = FakeDevice()

    def process(name: str, tensor: bytes) -> int:
        if name == "t0":
            assert device.begun.acquire(timeout=WAIT) and device.begun.acquire(timeout=WAIT)  # a later block's too
        return len(tensor)

    assert load(small(file), device, process) == {name: len(data) for name, data in content.items()}


def test_a_file_cut_short_while_it_is_read_is_an_error(file: Path) -> None:
    planned, device = small(file), FakeDevice()
    tensors = stream(planned, device, threads=1)
    next(tensors)
    os.truncate(file, 6 * PAGE)
    with pytest.raises(
        LoadError,
        match=r"a\.safetensors (ends at byte \d+, where its header promises more|was changed while it was read)",
    ):
        list(tensors)
    assert device.closed


def test_a_file_rewritten_while_it_is_read_is_an_error(file: Path) -> None:
    tensors = stream(small(file), FakeDevice(), threads=1)
    next(tensors)
    with file.open("r+b") as opened:
        opened.seek(-1, os.SEEK_END)
        opened.write(b"!")
    os.utime(file, ns=(1, 1))
    with pytest.raises(LoadError, match="was changed while it was read: load again"):
        list(tensors)


def test_another_file_than_the_planned_one_is_an_error(file: Path, content: dict[str, bytes]) -> None:
    planned, device = small(file), FakeDevice()
    write(file.with_name("new"), content).replace(file)
    with pytest.raises(LoadError, match="is not the file it was when the load was planned: plan again"):
        list(stream(planned, device))
    assert device.closed


def test_a_missing_file_is_an_error(file: Path) -> None:
    planned = small(file)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        list(stream(planned, FakeDevice()))


def test_a_full_device_is_told_to_the_consumer(file: Path) -> None:
    device = FakeDevice(breaks=True)
    with pytest.raises(MemoryError, match="the device is full"):
        list(stream(small(file), device))
    assert device.closed


def test_what_the_consumer_raises_ends_the_readers(file: Path) -> None:
    def process(name: str, tensor: bytes) -> None:
        raise ZeroDivisionError

    device = FakeDevice()
    with pytest.raises(ZeroDivisionError):
        load(small(file), device, process)
    assert device.closed


def test_a_dtype_the_device_has_not_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    file, device = write(tmp_path / "f.safetensors", {"x": b"12"}, dtype="I8"), FakeDevice()
    with pytest.raises(LoadError, match="tensors of I8, which the device cannot hold"):
        list(stream(plan_files([file]), device))
    assert device.buffers == 0


def test_a_file_of_no_tensors_and_a_lying_header(tmp_path: Path) -> None:
    assert list(stream(plan_files([write(tmp_path / "e.safetensors", {})]), FakeDevice())) == []
    empty = write(tmp_path / "n.safetensors", {"nothing": b""})
    assert list(stream(plan_files([empty]), FakeDevice())) == [("nothing", b"")]
    empty.write_bytes(empty.read_bytes() + b"more")
    with pytest.raises(HeaderError):
        plan_files([empty])


def test_what_an_index_does_not_name_is_loaded_as_well_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(tmp_path / "m.safetensors", {"a": b"1", "b": b"2"})
    with caplog.at_level("WARNING"):
        assert dict(stream(plan_files([file], {"a"}), FakeDevice())) == {"a": b"1", "b": b"2"}
    assert "the files have b (of 1 in all), which their index does not name" in caplog.text
    with pytest.raises(PlanError, match="the files lack c, which the model needs"):
        plan_files([file], {"a", "c"})
