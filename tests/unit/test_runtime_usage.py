"""The usage journal: one line a request, whatever the order in which engine and HTTP exchange end."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.usage import Journal, request_of
from runtime.wire import UsageEntry

ID = "0123456789abcdef0123456789abcdef"


def entries(path: Path) -> list[UsageEntry]:
    return [UsageEntry.model_validate_json(line) for line in path.read_text().splitlines()]


def close(journal: Journal, engine_id: str, tokens: int, finish: str = "stop") -> None:
    journal.closed(engine_id, input_tokens=5, cached_tokens=2, output_tokens=tokens, finish=finish)


@pytest.mark.parametrize("engine_id", [f"chatcmpl-{ID}", f"cmpl-{ID}-0", f"cmpl-{ID}-3", f"chatcmpl-{ID}_1", ID])
def test_the_routers_id_is_found_in_the_engines(engine_id: str) -> None:
    assert request_of(engine_id) == ID


def test_an_id_of_another_shape_is_kept() -> None:
    assert request_of("cmpl-abc-0") == "cmpl-abc-0"


def test_a_complete_answer_is_written_before_its_last_byte(tmp_path: Path) -> None:
    grown: list[None] = []
    journal = Journal(str(tmp_path / "j"), "r1", lambda: grown.append(None))
    journal.opened(f"chatcmpl-{ID}")
    close(journal, f"chatcmpl-{ID}", 7)
    assert not grown
    tally = journal.settle(ID)
    assert (tally.input_tokens, tally.cached_tokens, tally.output_tokens) == (5, 2, 7)
    assert [entry.output_tokens for entry in entries(tmp_path / "j")] == [7]
    journal.ended(ID)
    assert len(entries(tmp_path / "j")) == len(grown) == 1


def test_an_abort_is_written_when_the_engine_stops(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "j"), "r1", lambda: None)
    journal.opened(f"cmpl-{ID}-0")
    journal.ended(ID)  # the caller left first
    assert entries(tmp_path / "j") == []
    close(journal, f"cmpl-{ID}-0", 3, "abort")
    (entry,) = entries(tmp_path / "j")
    assert (entry.request_id, entry.output_tokens, entry.finish) == (ID, 3, "abort")


def test_a_request_the_engine_never_saw_leaves_no_line(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "j"), "r1", lambda: None)
    assert journal.settle(ID).output_tokens == 0
    journal.ended(ID)
    assert entries(tmp_path / "j") == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tokens=st.lists(st.integers(0, 50), min_size=1, max_size=5), order=st.randoms(use_true_random=False), settle=st.booleans())
def test_the_sum_of_all_sequences_is_written_once(tmp_path: Path, tokens: list[int], order: object, settle: bool) -> None:
    path = tmp_path / f"j{next(_numbers)}"
    journal = Journal(str(path), "r1", lambda: None)
    for index in range(len(tokens)):
        journal.opened(f"cmpl-{ID}-{index}")
    steps = [("close", index) for index in range(len(tokens))] + [("end", 0)]
    order.shuffle(steps)  # type: ignore[attr-defined]
    for step, index in steps:
        if step == "close":
            close(journal, f"cmpl-{ID}-{index}", tokens[index])
        else:
            if settle:
                journal.settle(ID)
            journal.ended(ID)
    (entry,) = entries(path)
    assert entry.output_tokens == sum(tokens)
    assert entry.input_tokens == 5 * len(tokens)


_numbers = itertools.count()
