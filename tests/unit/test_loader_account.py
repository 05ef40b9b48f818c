"""What a load has not written, and what that is called in the snapshot."""

from __future__ import annotations

from runtime.loader.coverage import in_the_snapshot, some, unwritten

PACKED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}
QKV = "model.layers.0.self_attn.qkv_proj.weight"


def shards(*letters: str) -> list[str]:
    return [f"model.layers.0.self_attn.{letter}_proj.weight" for letter in letters]


def test_what_was_written_in_parts_is_whole_and_what_lacks_one_is_not() -> None:
    places = {"fused": (1000, 300), "next": (1300, 100), "empty": (1400, 0)}
    parts = {(1000, 100), (1100, 100), (1200, 100), (1300, 100), (1400, 50)}
    assert unwritten(places, parts) == {}
    assert unwritten(places, parts - {(1100, 100)}) == {"fused": 100}
    assert unwritten(places, set()) == {"fused": 300, "next": 100}


def test_a_part_written_twice_counts_once() -> None:
    assert unwritten({"fused": (0, 300)}, {(0, 100), (100, 100)} | {(0, 100)}) == {"fused": 100}


def test_a_fused_parameter_is_missed_under_the_names_that_were_not_given() -> None:
    assert in_the_snapshot(QKV, shards("q", "v"), PACKED) == shards("k")
    assert in_the_snapshot(QKV, [], PACKED) == shards("q", "k", "v")
    assert in_the_snapshot(QKV, shards("q", "k", "v"), PACKED) == [QKV], "all were given, and not all fitted"
    assert in_the_snapshot("model.norm.weight", [], PACKED) == ["model.norm.weight"]


def test_many_names_are_cut_short() -> None:
    assert some(["a", "b", "c"]) == "a, b, c"
    assert some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
