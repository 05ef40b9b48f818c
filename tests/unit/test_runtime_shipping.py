"""Journals to the activator: at least once, nothing forgotten before it is stored."""

from __future__ import annotations

from pathlib import Path

from runtime.shipping import LARGEST_BATCH, Shipping
from runtime.wire import UsageBatch, UsageEntry


def line(number: int) -> str:
    entry = UsageEntry(request_id=f"{number:032x}", replica_id="r1", input_tokens=1, cached_tokens=0, output_tokens=number, finish="stop")
    return entry.model_dump_json() + "\n"


class Activator:
    def __init__(self) -> None:
        self.batches: list[UsageBatch] = []
        self.connected = True

    def take(self, batch: UsageBatch) -> bool:
        if self.connected:
            self.batches.append(batch)
        return self.connected

    @property
    def numbers(self) -> list[int]:
        return [entry.output_tokens for batch in self.batches for entry in batch.entries]


def append(folder: Path, *lines: str) -> None:
    with (folder / "r1.jsonl").open("a") as file:
        file.write("".join(lines))


def test_lines_are_sent_once_and_the_file_goes_when_all_is_stored(tmp_path: Path) -> None:
    activator = Activator()
    shipping = Shipping(tmp_path, activator.take)
    shipping.opened("r1")
    append(tmp_path, line(1), line(2), line(3)[:20])
    shipping.grown("r1")
    assert activator.numbers == [1, 2]  # the torn third waits
    append(tmp_path, line(3)[20:])
    shipping.finished("r1")
    assert activator.numbers == [1, 2, 3]
    shipping.stored(1)
    assert (tmp_path / "r1.jsonl").exists()
    shipping.stored(2)
    assert not (tmp_path / "r1.jsonl").exists()


def test_without_a_connection_nothing_is_lost(tmp_path: Path) -> None:
    activator = Activator()
    activator.connected = False
    shipping = Shipping(tmp_path, activator.take)
    shipping.opened("r1")
    append(tmp_path, line(1))
    shipping.finished("r1")
    activator.connected = True
    shipping.again()
    assert activator.numbers == [1]


def test_a_new_connection_gets_what_is_not_known_to_be_stored(tmp_path: Path) -> None:
    activator = Activator()
    shipping = Shipping(tmp_path, activator.take)
    shipping.opened("r1")
    append(tmp_path, line(1))
    shipping.grown("r1")
    shipping.stored(1)
    append(tmp_path, line(2))
    shipping.grown("r1")
    shipping.again()
    assert activator.numbers == [1, 2, 2]
    shipping.stored(2)  # an answer of the old connection means nothing any more
    shipping.finished("r1")
    assert (tmp_path / "r1.jsonl").exists()
    shipping.stored(3)
    assert not (tmp_path / "r1.jsonl").exists()


def test_files_of_a_dead_agent_are_shipped(tmp_path: Path) -> None:
    append(tmp_path, line(7), line(8)[:10])
    activator = Activator()
    shipping = Shipping(tmp_path, activator.take)
    shipping.again()
    assert activator.numbers == [7]
    shipping.stored(1)
    assert not (tmp_path / "r1.jsonl").exists()


def test_a_line_that_cannot_be_read_does_not_stop_the_rest(tmp_path: Path) -> None:
    append(tmp_path, "garbage\n", line(1), "garbage\n")
    activator = Activator()
    shipping = Shipping(tmp_path, activator.take)
    shipping.again()
    assert activator.numbers == [1]
    shipping.stored(1)
    assert not (tmp_path / "r1.jsonl").exists()


def test_batches_are_bounded(tmp_path: Path) -> None:
    activator = Activator()
    shipping = Shipping(tmp_path, activator.take)
    shipping.opened("r1")
    append(tmp_path, *(line(number) for number in range(LARGEST_BATCH + 1)))
    shipping.grown("r1")
    assert [len(batch.entries) for batch in activator.batches] == [LARGEST_BATCH, 1]
    assert activator.numbers == list(range(LARGEST_BATCH + 1))
