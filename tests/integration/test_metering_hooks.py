"""Our counts in vLLM's own output processor, without an engine: random lives of requests, and hooks that do not
count.
"""

from __future__ import annotations

from tests.integration.forks import call
from tests.integration.metering_probe import LIVES, PROMPT, counted


def test_whatever_way_a_sequence_ends_it_is_counted_once_and_nothing_is_left() -> None:
    said = call(counted)
    assert said["lives"] == {
        "right": LIVES,
        "told while it ran": LIVES,
        "vllm generation": LIVES,
        "nothing left": LIVES,
    }
    assert said["choices"] == [1, 2, 8]
    lines, in_the_answer, in_vllms_counters, marked_without_need = said["unseen"]
    assert [line[1:4] for line in lines] == [[PROMPT, 4, 0]], "the prompt is read, and nothing is made that is seen"
    assert (in_the_answer, in_vllms_counters, marked_without_need) == (0, 0, False)
    assert [line[1:] for line in said["left while it was read"]] == [[6, 2, 0, "abort"]], (
        "one prompt, as far as it was read"
    )
    assert said["uncompiled"] == [[0, 0, 0], True], "the caller's mistake, and it costs nothing"
    assert said["must step"] == [0, 1, 2, 0], "what waits for its grammar holds no steps up"
    assert said["canary"] == "ready, 0 in vLLM's counters, 0 lines, left: {}"
    for what, found in (("a dead hook", "nothing"), ("a wrong count", f"{PROMPT} + 3"), ("never closed", "nothing")):
        assert said[f"canary, {what}"].startswith(f"the canary took {PROMPT} + 2 tokens, and counted were: {found};"), (
            what
        )
