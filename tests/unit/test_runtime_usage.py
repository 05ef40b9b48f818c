"""The usage journal: one line a request, whatever the order in which engine and HTTP exchange end, and whatever the
disk does.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.journal_line import decode
from runtime.serving.usage import CANARY, MOST_KEPT, NOBODY, Counts, Journal, request_of
from runtime.wire import UsageEntry
from tests.examples import examples

ID = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"


class Later:
    """What was asked for later, until it is time."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def __call__(self, seconds: float, callback: Callable[[], None]) -> None:
        self.due.append(callback)

    def pass_by(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()


def make(
    path: Path,
    grown: Callable[[], None] = lambda: None,
    later: Later | None = None,
    write: Callable[[int, bytes], int] = os.write,
) -> Journal:
    return Journal(str(path), "r1", grown=grown, later=later or Later(), write=write)


def entries(path: Path) -> list[UsageEntry]:
    return [decode(line) for line in path.read_bytes().splitlines()]


def counted(output: int, cached: int = 2) -> Callable[[], Counts]:
    return lambda: Counts(5, cached, output)


@pytest.mark.parametrize(
    "engine_id",
    [
        f"chatcmpl-{ID}",
        f"cmpl-{ID}-0",
        f"cmpl-{ID}-15",
        f"embd-{ID}-2047",
        f"embd-{ID}-prompt-0-chunk-0",
        f"embd-{ID}-prompt-3",
        f"chatcmpl-{ID}-{OTHER}-beam-7",
        f"score_{ID}_1",
        f"resp_{ID}",
        ID,
    ],
)
def test_the_routers_id_is_found_in_any_of_the_engines(engine_id: str) -> None:
    assert request_of(engine_id) == ID


def test_what_is_nobodys_is_counted_under_a_reserved_id(tmp_path: Path) -> None:
    assert request_of("cmpl-abc-0") is None
    journal = make(tmp_path / "j")
    journal.opened("s", "cmpl-abc-0", counted(9))
    journal.closed("s", "stop")
    (entry,) = entries(tmp_path / "j")
    assert (entry.request_id, entry.output_tokens) == (NOBODY, 9)
    assert not journal._tallies and not journal._sequences


def test_a_complete_answer_is_written_before_its_last_byte(tmp_path: Path) -> None:
    grown: list[None] = []
    journal = make(tmp_path / "j", lambda: grown.append(None))
    journal.begun(ID)
    journal.opened("s", f"chatcmpl-{ID}", counted(7))
    assert journal.settle(ID) is None and not grown, "it is not complete"
    journal.closed("s", "length")
    assert journal.settle(ID) == Counts(5, 2, 7)
    assert [(entry.output_tokens, entry.finish) for entry in entries(tmp_path / "j")] == [(7, "length")]
    assert journal.ended(ID) == []
    assert len(entries(tmp_path / "j")) == len(grown) == 1


def test_an_abort_is_written_when_the_engine_stops(tmp_path: Path) -> None:
    journal = make(tmp_path / "j")
    journal.begun(ID)
    journal.opened("s", f"cmpl-{ID}-0", counted(3))
    assert journal.ended(ID) == ["s"]  # the caller left first
    assert entries(tmp_path / "j") == []
    journal.closed("s", "abort")
    (entry,) = entries(tmp_path / "j")
    assert (entry.request_id, entry.output_tokens, entry.finish) == (ID, 3, "abort")


def test_a_sequence_that_ends_twice_is_counted_once(tmp_path: Path) -> None:
    journal = make(tmp_path / "j")
    journal.begun(ID)
    for number in range(2):
        journal.opened(f"{number}_s", f"chatcmpl-{ID}", counted(10))
    for sequence_id in ("0_s", "1_s", "1_s", "0_s", "s"):  # its children's, as vLLM's abort does it, then all again
        journal.closed(sequence_id, "abort")
    journal.ended(ID)
    (entry,) = entries(tmp_path / "j")
    assert (entry.input_tokens, entry.cached_tokens, entry.output_tokens) == (5, 2, 20)


def test_a_request_the_engine_never_saw_leaves_no_line_and_no_count(tmp_path: Path) -> None:
    journal = make(tmp_path / "j")
    journal.begun(ID)
    assert journal.settle(ID) is None
    journal.ended(ID)
    assert entries(tmp_path / "j") == [] and not journal._tallies


def test_an_error_is_not_billed_whatever_the_engine_made(tmp_path: Path) -> None:
    journal = make(tmp_path / "j")
    journal.begun(ID)
    journal.opened("a", f"cmpl-{ID}-0", counted(3))
    journal.void(ID)  # the second prompt was refused
    assert journal.running() == []
    journal.ended(ID)
    journal.closed("a", "abort")
    assert entries(tmp_path / "j") == [] and not journal._tallies


def test_the_canary_is_counted_and_leaves_nothing(tmp_path: Path) -> None:
    journal = make(tmp_path / "j")
    for closes in (True, False):
        journal.begun(CANARY)
        journal.opened("c", f"canary-{CANARY}", counted(2))
        assert journal.running() == []
        if closes:
            journal.closed("c", "length")
        assert journal.discard(CANARY) == (Counts(5, 2, 2) if closes else None)
    journal.closed("c", "abort")
    journal.end("abort")
    assert entries(tmp_path / "j") == [] and not journal._tallies and not journal._sequences
    assert journal.discard(CANARY) is None


def test_what_runs_is_known_while_it_runs_and_written_when_the_replica_ends(tmp_path: Path) -> None:
    journal, made = make(tmp_path / "j"), {"a": 1, "b": 2}
    journal.begun(ID)
    for name in made:
        journal.opened(name, f"chatcmpl-{ID}", lambda name=name: Counts(5, 0, made[name]))  # type: ignore[misc]
    made["a"] = 8
    assert [(count.request_id, count.input_tokens, count.output_tokens) for count in journal.running()] == [(ID, 5, 10)]
    journal.closed("a", "stop")
    made["b"] = 4
    assert [count.output_tokens for count in journal.running()] == [12]
    journal.end("abort")
    journal.closed("b", "abort")
    journal.ended(ID)
    assert [(entry.output_tokens, entry.finish) for entry in entries(tmp_path / "j")] == [(12, "abort")]


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tokens=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 50)), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
    settle=st.booleans(),
)
def test_each_prompt_and_each_sequence_is_in_the_line_once(
    tmp_path: Path, tokens: list[tuple[int, int]], order: random.Random, settle: bool
) -> None:
    path = tmp_path / f"j{next(_numbers)}"
    journal = make(path)
    journal.begun(ID)
    for index, (prompt, output) in enumerate(tokens):
        journal.opened(f"s{index}", f"cmpl-{ID}-{prompt}", counted(output))
    steps = [f"s{index}" for index in range(len(tokens))] * 2 + ["end"]  # each is closed twice
    order.shuffle(steps)
    for step in steps:
        if step != "end":
            journal.closed(step, "stop")
            continue
        if settle:
            journal.settle(ID)
        journal.ended(ID)
    (entry,) = entries(path)
    assert entry.output_tokens == sum(output for _, output in tokens)
    assert entry.input_tokens == 5 * len({prompt for prompt, _ in tokens})
    assert not journal._tallies and not journal._sequences


_numbers = itertools.count()


# The disk


class Disk:
    """A file on a disk of which the room is told: writes are short, or fail, as the kernel's are."""

    def __init__(self) -> None:
        self.room = 0

    def write(self, descriptor: int, data: bytes) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        part = data[: self.room]
        self.room -= len(part)
        return os.write(descriptor, part)


def one(journal: Journal, number: int) -> str:
    request_id = f"{number:032x}"
    journal.begun(request_id)
    journal.opened(f"s{number}", f"cmpl-{request_id}-0", counted(number))
    journal.closed(f"s{number}", "stop")
    assert journal.settle(request_id) is not None
    journal.ended(request_id)
    return request_id


def test_on_a_full_disk_lines_are_kept_in_order_and_written_when_there_is_room(tmp_path: Path) -> None:
    disk = Disk()
    later, path, asked = Later(), tmp_path / "j", []
    journal = make(path, later=later, write=disk.write)
    for number, room in enumerate((0, 0, 17, 0, 90, 1, 10_000, 0), start=1):
        disk.room = room
        asked.append(one(journal, number))
        later.pass_by()
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        assert [decode(line).request_id for line in whole.splitlines()] == asked[: len(whole.splitlines())], (
            "in order, none glued to another"
        )
        assert len(later.due) == bool(journal._kept), "tried again exactly where something is kept"
        assert [count.request_id for count in journal.running()] == asked[len(whole.splitlines()) :], (
            "what a kill would lose is told"
        )
    disk.room = 10_000
    later.pass_by()
    assert [entry.request_id for entry in entries(path)] == asked
    assert [entry.output_tokens for entry in entries(path)] == list(range(1, 9))


def test_what_is_kept_is_bounded_and_nothing_is_begun_beyond_it(tmp_path: Path) -> None:
    disk = Disk()
    later = Later()
    journal = make(tmp_path / "j", later=later, write=disk.write)
    for number in range(1, MOST_KEPT + 1):
        assert not journal.full
        one(journal, number)
    assert journal.full and len(later.due) == 1
    disk.room = 1 << 30
    later.pass_by()
    assert not journal.full and len(entries(tmp_path / "j")) == MOST_KEPT


def test_the_end_tries_once_more(tmp_path: Path) -> None:
    disk = Disk()
    journal = make(tmp_path / "j", write=disk.write)
    one(journal, 1)
    disk.room = 10_000
    journal.end("abort")
    assert len(entries(tmp_path / "j")) == 1
