"""Journals to the activator: at least once, nothing forgotten before it is stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.journal_line import encode
from runtime.node.usage_shipper import LARGEST_BATCH, MOST_UNSTORED, UsageShipper
from runtime.wire import UsageBatch, UsageEntry


def line(number: int) -> str:
    entry = UsageEntry(
        request_id=f"{number:032x}",
        replica_id="r1",
        input_tokens=1,
        cached_tokens=0,
        output_tokens=number,
        finish="stop",
    )
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

    def stores(self, shipping: UsageShipper) -> None:
        """Everything it was sent, and what comes of that."""
        known = 0
        while known < len(self.batches):
            batch = self.batches[known]
            known += 1
            shipping.stored(batch.batch)


def append(folder: Path, *lines: str) -> None:
    with (folder / "r1.jsonl").open("a") as file:
        file.write("".join(lines))


def test_lines_are_sent_once_and_the_file_goes_when_all_is_stored(tmp_path: Path) -> None:
    activator = Activator()
    shipping = UsageShipper(tmp_path, activator.take)
    shipping.opened("r1")
    append(tmp_path, line(1), line(2), line(3)[:20])
    shipping.grown("r1")
    assert activator.numbers == [1, 2]  # the torn third waits
    append(tmp_path, line(3)[20:])
    shipping.finished("r1")
    assert activator.numbers == [1, 2, 3]
    assert [batch.complete for batch in activator.batches] == [(), (), ("r1",)]
    shipping.stored(1)
    shipping.stored(2)
    assert (tmp_path / "r1.jsonl").exists(), "the word that it is whole is not stored yet"
    shipping.stored(3)
    assert not (tmp_path / "r1.jsonl").exists()


def test_without_a_connection_nothing_is_lost(tmp_path: Path) -> None:
    activator = Activator()
    activator.connected = False
    shipping = UsageShipper(tmp_path, activator.take)
    shipping.opened("r1")
    append(tmp_path, line(1))
    shipping.finished("r1")
    activator.connected = True
    shipping.again()
    assert activator.numbers == [1]


def test_a_new_connection_gets_what_is_not_known_to_be_stored(tmp_path: Path) -> None:
    activator = Activator()
    shipping = UsageShipper(tmp_path, activator.take)
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
    shipping.stored(3)
    assert (tmp_path / "r1.jsonl").exists()
    shipping.stored(4)
    assert not (tmp_path / "r1.jsonl").exists()


def test_files_of_a_dead_agent_are_shipped(tmp_path: Path) -> None:
    append(tmp_path, line(7), line(8)[:10])
    activator = Activator()
    shipping = UsageShipper(tmp_path, activator.take)
    shipping.again()
    assert activator.numbers == [7]
    activator.stores(shipping)
    assert not (tmp_path / "r1.jsonl").exists()


def test_a_line_that_cannot_be_read_does_not_stop_the_rest(tmp_path: Path) -> None:
    append(tmp_path, "garbage\n", line(1), "garbage\n")
    activator = Activator()
    shipping = UsageShipper(tmp_path, activator.take)
    shipping.again()
    assert activator.numbers == [1]
    activator.stores(shipping)
    assert not (tmp_path / "r1.jsonl").exists()


def test_batches_are_bounded(tmp_path: Path) -> None:
    activator = Activator()
    shipping = UsageShipper(tmp_path, activator.take)
    shipping.opened("r1")
    append(tmp_path, *(line(number) for number in range(LARGEST_BATCH + 1)))
    shipping.grown("r1")
    assert [len(batch.entries) for batch in activator.batches] == [LARGEST_BATCH, 1]
    assert not any(batch.complete for batch in activator.batches), "it may write more"
    assert activator.numbers == list(range(LARGEST_BATCH + 1))


def test_a_backlog_goes_out_as_fast_as_it_is_stored_and_no_faster(tmp_path: Path) -> None:
    activator = Activator()
    shipping = UsageShipper(tmp_path, activator.take)
    shipping.opened("r1")
    count = (MOST_UNSTORED + 3) * LARGEST_BATCH
    append(tmp_path, *(line(number) for number in range(count)))
    shipping.finished("r1")
    assert len(activator.batches) == MOST_UNSTORED
    activator.stores(shipping)
    assert activator.numbers == list(range(count)) and activator.batches[-1].complete == ("r1",)
    assert not (tmp_path / "r1.jsonl").exists()


def test_a_replica_that_never_wrote_is_called_whole_too(tmp_path: Path) -> None:
    activator = Activator()
    shipping = UsageShipper(tmp_path, activator.take)
    shipping.finished("never opened")
    assert [(batch.entries, batch.complete) for batch in activator.batches] == [((), ("never opened",))]
    activator.stores(shipping)
    assert shipping.sent() == []


def test_a_torn_last_line_of_a_replica_that_is_gone_is_named_and_a_whole_one_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = encode(UsageEntry.model_validate_json(line(2)))
    (tmp_path / "r1.jsonl").write_bytes(encode(UsageEntry.model_validate_json(line(1))) + whole[:-1])
    (tmp_path / "r2.jsonl").write_bytes(whole[:-5])
    activator = Activator()
    shipping = UsageShipper(tmp_path, activator.take)
    shipping.again()
    assert activator.numbers == [1, 2]
    told = capsys.readouterr().out
    assert "r2.jsonl" in told and "offset=0" in told and "r1.jsonl" not in told
    activator.stores(shipping)
    assert not list(tmp_path.iterdir())


def test_what_is_sent_is_known_by_replica(tmp_path: Path) -> None:
    activator = Activator()
    shipping = UsageShipper(tmp_path, activator.take)
    shipping.opened("r1")
    append(tmp_path, line(1), line(2)[:9])
    assert shipping.sent() == ["r1"] and activator.numbers == [1]
    activator.connected = False
    append(tmp_path, line(2)[9:])
    assert shipping.sent() == []
