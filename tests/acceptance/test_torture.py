"""The torture of the ledger in its short form: every process killed again and again, and every row what was made."""

from __future__ import annotations

from loadtests.torture.run import SHORT, torture


async def test_nothing_is_lost_nothing_double_and_every_row_is_what_was_made() -> None:
    verdict = await torture(SHORT)
    figures = verdict.figures
    assert not verdict.faults, "\n".join([*verdict.faults[:20], str(figures)])
    assert figures["lost"] == figures["double"] == 0 and figures["rows"] >= SHORT.calls * 0.9
    assert figures["left"] > SHORT.calls * 0.1 and figures["told whole"] > SHORT.calls * 0.4, (
        "calls of every kind were made"
    )
    assert figures["kills: router"] >= 6 and figures["broken off"] and figures["at a killed replica"], (
        "and everybody was killed"
    )
