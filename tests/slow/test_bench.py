"""What the benchmarks make of their measurements: rungs, waterfalls, tables, and what was met."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from loadtests.bench import report, targets
from loadtests.bench.inventory import Inventory, Memory
from loadtests.bench.parts import Parts, PartsFailed
from pilotlight.cli.bench import coldstart, loaders, peers


def status(*states: str, standbys: int = 1) -> dict[str, Any]:
    replicas = [{"state": state} for state in states]
    others = {"name": "other", "revisions": [{"replicas": [{"state": "ready"}]}]}
    return {
        "endpoints": [{"name": "e", "revisions": [{"replicas": replicas}]}, others],
        "nodes": [{"standbys_ready": standbys}],
    }


def test_an_endpoint_rests_on_the_rung_asked_for() -> None:
    assert coldstart.rests(status(), "e", "standby")
    assert not coldstart.rests(status(standbys=0), "e", "standby")
    assert coldstart.rests(status(standbys=0), "e", "staged")
    assert not coldstart.rests(status(), "e", "staged"), "it would be woken from standby"
    assert not coldstart.rests(status("ready"), "e", "standby")
    assert not coldstart.rests(status("parking"), "e", "parked")
    assert coldstart.rests(status("parked"), "e", "parked")


@pytest.mark.parametrize(
    ("states", "rung", "says"), [((), "parked", "instead of being parked"), (("parked",), "standby", "--from parked")]
)
def test_a_rung_it_will_never_rest_on_is_told_at_once(states: tuple[str, ...], rung: str, says: str) -> None:
    with pytest.raises(coldstart.BenchFailed, match=says):
        coldstart.rests(status(*states), "e", rung)


def test_percentiles_are_nearest_rank_and_phases_follow_each_other() -> None:
    wakes = [{"seconds": float(number), "init": 2.0, "hold": 1.0, "new": 0.5} for number in range(1, 101)]
    found = coldstart.summary(wakes, [101.0])
    assert (found["p50_s"], found["p95_s"], found["p99_s"], found["max_s"]) == (50.5, 95, 99, 100)
    assert list(found["phases"]) == ["hold", "init", "new"]
    assert found["ratio"] == 2.0


def row(cache: str, seconds: float, total: int = 7) -> dict[str, Any]:
    return {"cache": cache, "seconds": seconds, "bytes": 10, "sum": total}


def test_the_loader_table_has_medians_and_every_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = {
        "safetensors, mapped": [row("warm", 1), row("cold", 4), row("warm", 3), row("cold", 6), row("warm", 2)],
        "tensorizer": [{"error": "not to be had: no such version"}],
        "fastsafetensors": [row("warm", 9, total=8)],
    }
    monkeypatch.setattr(loaders, "_rows", lambda name, *_: rows.get(name, [row("warm", 5)]))
    file = tmp_path / "f"
    file.write_bytes(b"x" * 2_000_000)
    found = loaders.compare(file, rounds=3, gpu=False, scratch=tmp_path, say=lambda text: None)
    assert found["gpu_lines"] == "skipped: no GPU"
    lines = loaders.lines(found)
    assert lines[0] == ("safetensors, mapped", "2.000 s (0.0 GB/s)", "5.000 s (0.0 GB/s)")
    told = {name: (warm, cold) for name, warm, cold in lines}
    assert told["tensorizer"] == ("failed: not to be had: no such version", "")
    assert told["fastsafetensors"][0] == "failed: its tensors are not the file's (8 for 7)"
    assert set(loaders.CPU) == set(told)


def test_a_peer_that_cannot_be_installed_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("venv.create", lambda folder, with_pip: folder.mkdir(parents=True))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(peers.NoPeer):
        peers.python_with("pilotlight-has-no-such-peer==0", place=tmp_path / "peers")
    assert not list(tmp_path.rglob("installed"))


def test_what_was_to_be_met_is_said_in_words() -> None:
    assert targets.line(targets.at_most("must", "p50", 0.257, 0.55)) == "- must: p50 ≤ 0.55 s: 0.257 s, **met**"
    assert targets.line(targets.at_least("goal", "ratio", 69.4, 70)) == "- goal: ratio ≥ 70: 69.4, **missed**"
    assert targets.line(targets.none("must", "wakes that fail", "")) == "- must: wakes that fail: none, **met**"
    assert (
        targets.line(targets.none("must", "left", {"sockets": ["s"]})) == "- must: left: {'sockets': ['s']}, **missed**"
    )


def test_results_show_tables_failures_and_targets() -> None:
    machine = {"cpu": "c", "cores": 2, "memory_gib": 1, "gpu": "none", "python": "3", "date": "d", "versions": {}}
    phases = {"init": coldstart.percentiles([0.2]), "hold": coldstart.percentiles([0.1])}
    figures = {
        **coldstart.percentiles([0.3]),
        "wakes": 1,
        "max_s": 0.3,
        "phases": phases,
        "extra": 5,
        "failed": "part two: it broke",
    }
    text = report.render(
        {
            "endurance": {"hardware": machine, **figures, "tables": {"T": [["a", "b"], ["1", "2"]]}},
            "other": {"hardware": machine},
        }
    )
    assert "**Not complete**: part two: it broke." in text
    assert "| init | 0.100 | 0.200 | 0.200 | 0.200 |" in text  # begins where hold ends
    assert "| extra | 5 |" in text
    assert "**T**\n\n| a | b |\n|---|---|\n| 1 | 2 |" in text
    assert text.index("Wakes in a row") < text.index("## other")


def test_a_part_that_fails_does_not_end_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    parts, done = Parts(), list[int]()
    with parts.part("one"):
        raise ValueError("broken")
    with parts.part("two"):
        done.append(2)
    assert done == [2]
    with pytest.raises(PartsFailed, match="one: ValueError: broken"):
        parts.finish()


def inventory(**counts: int) -> Inventory:
    return Inventory(Counter(), Counter(counts), frozenset(), frozenset(), Memory(0, 0))


def test_an_inventory_tells_what_was_left_and_not_what_has_gone() -> None:
    assert inventory(router=5, agent=1).left_since(inventory(router=3, agent=4)) == {"descriptors": {"router": 2}}
    assert inventory(router=2).left_since(inventory(router=3)) == {}
