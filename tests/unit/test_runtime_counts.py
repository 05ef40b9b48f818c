"""The last durable count: of every request of a lost replica that has no line, once, whatever died, and never of one
that has.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotlight.sealed import Damaged
from runtime.control import Control, FromReplica
from runtime.journal_line import encode, recover
from runtime.node.last_counts import MOST_BYTES, Counts
from runtime.node.usage_shipper import UsageShipper
from runtime.node.watermark import BEATS, LEAST_SECONDS, MOST_SECONDS, Watermark
from runtime.serving.pulse import COUNTS_IN_A_BEAT, Beats, Pulse
from runtime.wire import RequestCount, Shipped, UsageBatch, UsageEntry
from tests.examples import examples
from tests.small_disks import BLOCK, fill, small_disk


def count(request_id: str, output: int) -> RequestCount:
    return RequestCount(request_id=request_id, input_tokens=10, cached_tokens=4, output_tokens=output)


def line(request_id: str, output: int = 99) -> bytes:
    entry = UsageEntry(
        request_id=request_id, replica_id="r1", input_tokens=10, cached_tokens=4, output_tokens=output, finish="stop"
    )
    return encode(entry)


def journal(folder: Path, replica_id: str = "r1") -> dict[str, tuple[int, bool]]:
    """(output tokens, partial) of the requests in it; a request has one line."""
    found: dict[str, tuple[int, bool]] = {}
    for text in (folder / f"{replica_id}.jsonl").read_bytes().splitlines():
        for _, said in recover(text):
            if not isinstance(said, Damaged):
                assert said.request_id not in found
                found[said.request_id] = (said.output_tokens, said.partial)
    return found


def test_a_replica_that_is_lost_leaves_its_last_beat(tmp_path: Path) -> None:
    (tmp_path / "r1.jsonl").write_bytes(line("a"))
    counts = Counts(tmp_path)
    counts.heard("r1", [count("b", 1), count("c", 2)])
    counts.heard("r1", [count("b", 5), count("c", 7)])
    with (tmp_path / "r1.jsonl").open("ab") as file:
        file.write(line("c") + line("d")[:30])  # killed in the middle of a line
    counts.gone("r1")
    assert journal(tmp_path) == {"a": (99, False), "b": (5, True), "c": (99, False)}
    counts.gone("r1")
    assert len(journal(tmp_path)) == 3


def test_a_beat_in_several_frames_is_one(tmp_path: Path) -> None:
    (tmp_path / "r1.jsonl").touch()
    counts = Counts(tmp_path)
    for at in (1.0, 2.0):
        counts.heard("r1", [count("b", int(at))])
        counts.heard("r1", [count("c", int(at))], rest=True)
    assert sorted(counts.in_work(["r1", "unknown"])) == ["b", "c"] and counts.turns("r1") == 2
    counts.heard("r1", [count("c", 9)])
    counts.gone("r1")
    assert journal(tmp_path) == {"c": (9, True)}, "b is in work no more"


def test_the_frames_of_one_beat_say_that_they_are_one() -> None:
    many = [count(f"{number:032x}", number) for number in range(2 * COUNTS_IN_A_BEAT + 1)]
    ours, theirs = Control.pair()
    with ours, theirs:
        agent = Control(theirs, FromReplica)
        beats = Beats(Control(ours, FromReplica), Pulse())
        loop = asyncio.new_event_loop()
        beats.follow(loop, in_work=lambda: len(many), counts=lambda: many)
        beats.beat(1.0)  # asks the loop to look
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        theirs.setblocking(False)
        assert [frame.counts for frame in agent.waiting()] == [()]
        beats.beat(1.0)
        heard = list(agent.waiting())
    assert [frame.rest for frame in heard] == [False, True, True]
    assert [told for frame in heard for told in frame.counts] == many


def test_the_next_agent_ends_what_a_killed_one_had_kept(tmp_path: Path) -> None:
    (tmp_path / "r1.jsonl").write_bytes(line("a"))
    counts = Counts(tmp_path)
    for at in (1.0, 2.0):
        counts.heard("r1", [count("b", int(at)), count("c", int(at))])
        counts.heard("forgotten", [count("x", 1)])
        counts.persist(counts.snapshot(), [tmp_path / "r1.jsonl"])
    with (tmp_path / "r1.jsonl").open("ab") as file:
        file.write(line("c"))
    with (tmp_path / "counts.log").open("ab") as file:
        file.write(b'{"replicas":[{"replica')  # killed in the middle of a snapshot
    Counts(tmp_path)
    assert journal(tmp_path) == {"a": (99, False), "b": (2, True), "c": (99, False)}
    assert not (tmp_path / "forgotten.jsonl").exists(), "its journal was stored: nobody waits for it"
    Counts(tmp_path)
    assert len(journal(tmp_path)) == 3, "written once"


def test_nothing_is_written_while_nothing_runs_and_the_file_stays_small(tmp_path: Path) -> None:
    counts = Counts(tmp_path)
    assert counts.snapshot() is None
    counts.heard("r1", [count(f"{number:032x}", 1) for number in range(2000)])
    for _ in range(20):
        counts.persist(counts.snapshot(), [])
        assert (tmp_path / "counts.log").stat().st_size < 2 * MOST_BYTES
    counts.gone("r1")
    assert counts.snapshot() is not None, "that nothing runs any more is said once"
    assert counts.snapshot() is None


def test_what_a_full_disk_refuses_is_kept_until_it_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Until then the journal is not called whole, and nobody may conclude that a line does not come; in the next agent,
    too.
    """
    with small_disk(tmp_path / "disk", 1 << 20) as folder:
        (folder / "r1.jsonl").write_bytes(line("z") + b"x" * (BLOCK - len(line("z")) - 100) + b"\n")
        many = [f"q{number}" for number in range(40)]
        node, sent = Node(folder), list[UsageBatch]()

        def post(batch: UsageBatch) -> bool:
            sent.append(batch)
            return True

        node.shipping = UsageShipper(folder, post)
        node.word = Watermark(shipper=node.shipping, counts=node.counts, living=lambda: node.living)
        node.born("r1")
        node.beat("r1", *many)
        node.counts.persist(node.counts.snapshot(), [])
        filler = fill(folder)
        node.living.clear()
        node.word.gone("r1")
        for _ in range(3):
            node.word.retry()
        assert capsys.readouterr().out.count("counts_unwritten") == 1, "told once"
        node.ask()
        assert node.said[-1].replicas == ("r1",) and set(node.said[-1].in_work) == set(many)
        assert journal(folder) == {"z": (99, False)}, "all or nothing"

        after = Node(folder)  # its agent is killed, too
        after.shipping = UsageShipper(folder, post, unended=after.counts.unwritten)
        after.word = Watermark(shipper=after.shipping, counts=after.counts, living=list)
        after.shipping.sweep()
        after.ask()
        assert set(after.said[-1].in_work) == set(many)
        assert not any(batch.complete for batch in sent)
        filler.unlink()
        after.word.retry()
        assert journal(folder) == {"z": (99, False)} | dict.fromkeys(many, (1, True))
        assert sent[-1].complete == ("r1",)
        told = [entry.request_id for batch in sent for entry in batch.entries if entry.partial]
        assert sorted(told) == sorted(many), "before that"
        after.ask()
        assert after.said[-1].in_work == ()


def test_a_journal_that_cannot_be_written_is_called_whole_only_afterwards(tmp_path: Path) -> None:
    (tmp_path / "r1.jsonl").mkdir()  # cannot be written, whoever we are
    counts = Counts(tmp_path)
    counts.heard("r1", [count("a", 1)])
    assert not counts.gone("r1") and counts.unwritten == {"r1"} and counts.in_work(["r1"]) == ["a"]
    counts.persist(counts.snapshot(), [])
    assert counts.retry() == []
    counts = Counts(tmp_path)
    assert counts.unwritten == {"r1"} and counts.in_work(["r1"]) == ["a"]
    (tmp_path / "r1.jsonl").rmdir()
    (tmp_path / "r1.jsonl").touch()
    assert counts.retry() == ["r1"] and counts.retry() == [] and not counts.unwritten
    assert journal(tmp_path) == {"a": (1, True)}


@settings(max_examples=examples(60))
@given(
    beats=st.lists(
        st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=6, unique_by=lambda told: told[0]),
        min_size=1,
        max_size=8,
    ),
    power=st.booleans(),
)
def test_every_request_in_the_last_beat_has_exactly_one_count(
    tmp_path_factory: pytest.TempPathFactory, beats: list[list[tuple[int, bool]]], power: bool
) -> None:
    """Each beat: requests in work, and whether they end with a line before the next."""
    folder = tmp_path_factory.mktemp("journal")
    (folder / "r1.jsonl").touch()
    counts, ended, last = Counts(folder), set[str](), dict[str, int]()
    for number, beat in enumerate(beats):
        working = [(f"q{name}", ends) for name, ends in beat if f"q{name}" not in ended]
        counts.heard("r1", [count(name, number) for name, _ in working])
        counts.persist(counts.snapshot(), [folder / "r1.jsonl"])
        last = {name: number for name, _ in working}
        for name, ends in working:
            if ends:
                ended.add(name)
                with (folder / "r1.jsonl").open("ab") as file:
                    file.write(line(name))
    if power:
        Counts(folder)
    else:
        counts.gone("r1")
    expected = dict.fromkeys(ended, (99, False)) | {
        name: (made, True) for name, made in last.items() if name not in ended
    }
    assert journal(folder) == expected


class Node:
    """A node's counts, journals and word, by its own clock."""

    def __init__(self, folder: Path) -> None:
        self.counts, self.shipping, self.living = Counts(folder), UsageShipper(folder, lambda batch: True), list[str]()
        self.word = Watermark(shipper=self.shipping, counts=self.counts, living=lambda: self.living)
        self.said: list[Shipped] = []
        self.now = 100.0

    def born(self, replica_id: str) -> None:
        self.living.append(replica_id)
        self.shipping.opened(replica_id)

    def beat(self, replica_id: str, *requests: str, turned: bool = True) -> None:
        self.now += 1.0
        self.word.heard(replica_id, [count(name, 1) for name in requests], now=self.now, turned=turned)

    def ask(self, token: int = 1) -> None:
        self.word.ask(token, self.said.append, now=self.now)


def test_word_of_a_replica_comes_once_it_has_begun_all_it_was_given(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.born("r1")
    node.beat("r1", "a")
    node.ask()
    for _ in range(BEATS - 1):
        node.beat("r1", "a")
    assert node.said == []
    node.beat("r1", "a", "b")
    assert node.said == [Shipped(token=1, replicas=("r1",), in_work=("a", "b"))]


def test_one_that_hangs_is_left_out_and_one_that_dies_has_said_all(tmp_path: Path) -> None:
    node = Node(tmp_path)
    for name in ("hangs", "dies", "lives"):
        node.born(name)
        node.beat(name)
    node.ask()
    for _ in range(BEATS):
        node.beat("lives")
        node.word.heard("hangs", [count("x", 1)], now=node.now, turned=False)
    node.living.remove("dies")
    node.word.gone("dies")
    node.now += MOST_SECONDS
    node.word.look(now=node.now)
    (said,) = node.said
    assert set(said.replicas) == {"dies", "lives"} and said.in_work == ()


def test_one_that_is_being_built_has_nothing_in_work(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.born("new")
    node.ask()
    node.word.look(now=node.now + LEAST_SECONDS / 2)
    assert node.said == []
    node.word.look(now=node.now + LEAST_SECONDS)
    assert node.said == [Shipped(token=1, replicas=("new",))]


def test_a_replica_born_after_the_question_is_in_no_answer(tmp_path: Path) -> None:
    """What is asked for was never there; but nobody may conclude anything for what comes later."""
    node = Node(tmp_path)
    node.born("r1")
    node.beat("r1")
    node.ask()
    node.born("later")
    for _ in range(BEATS):
        node.beat("r1")
    assert [said.replicas for said in node.said] == [("r1",)]
    assert os.listdir(tmp_path) == []
