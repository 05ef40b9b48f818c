"""Two releases side by side: what every recorded release said is read today, and what is said today an older one can
read.

A failure here is a change that is no addition. Give a new field a default, leave old ones where they are, and send a
new value of a closed list only where the peer has said that it knows it; or raise `PROTOCOL` and say so in CHANGELOG.

The release of 2026-11-21 refused fields it did not know: its record holds what it wrote to disk, and what its names
mean, not that it could run beside a later one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.record_frames import CONTRACTS, MOVED, adapter, frames_of, recorded, schema_of

RELEASES = sorted(folder for folder in (Path(__file__).parents[1] / "recorded").iterdir() if folder.is_dir())

# Values that a closed list has gained: (frame or value, field) → why no older reader meets one.
NEW_VALUES: dict[tuple[str, str], str] = {}


def test_every_release_has_its_record() -> None:
    assert RELEASES
    assert all((folder / name).is_file() for folder in RELEASES for name in ("frames.jsonl", "schemas.json"))


@pytest.mark.parametrize("folder", RELEASES, ids=lambda folder: folder.name)
def test_what_a_release_said_is_read_with_every_field(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]
    assert len(lines) > 50
    for entry in lines:
        reader = adapter(entry["contract"])
        read = json.loads(reader.dump_json(reader.validate_json(entry["line"], extra="ignore")))
        assert within(json.loads(entry["line"]), read), (
            f"{entry['contract']} {entry['frame']}: {entry['line']} became {read}"
        )


@pytest.mark.parametrize("folder", RELEASES, ids=lambda folder: folder.name)
def test_what_we_say_a_release_could_read(folder: Path) -> None:
    then = json.loads((folder / "schemas.json").read_text())
    assert {MOVED.get(contract, contract) for contract in then} <= set(CONTRACTS)
    troubles = []
    for contract, old in then.items():
        now = schema_of(contract)
        today = {entry["frame"]: json.loads(entry["line"]) for entry in recorded(contract)}
        for name, frame in frames_of(old).items():
            if name not in frames_of(now):
                troubles.append(f"{contract}: {name} is gone")
                continue
            troubles += differences(frame, frames_of(now)[name], old.get("$defs", {}), now.get("$defs", {}), name)
            missing = {field for field, of in frame["properties"].items() if "default" not in of} - set(today[name])
            troubles += [f"{contract}: {name} is sent without {field}" for field in missing]
    assert not troubles, "\n".join(troubles)


def within(less: Any, more: Any) -> bool:
    """Is everything of `less` in `more`, with the same values?"""
    if isinstance(less, dict):
        return isinstance(more, dict) and all(key in more and within(value, more[key]) for key, value in less.items())
    if isinstance(less, list):
        return isinstance(more, list) and len(less) == len(more) and all(map(within, less, more))
    return bool(less == more)


def differences(
    old: dict[str, Any], new: dict[str, Any], olds: dict[str, Any], news: dict[str, Any], where: str
) -> Iterator[str]:
    """What of `new` a reader of `old` would not take."""
    if "$ref" in old and "$ref" in new:
        name = new["$ref"].rsplit("/", 1)[1]
        yield from differences(olds[old["$ref"].rsplit("/", 1)[1]], news[name], olds, news, name)
    elif "properties" in old:
        for field, of in old["properties"].items():
            if field not in new.get("properties", {}):
                yield f"{where}.{field} is gone"
            else:
                yield from differences(of, new["properties"][field], olds, news, f"{where}.{field}")
    elif "enum" in old:
        gained = set(new.get("enum", [new.get("const")])) - set(old["enum"])
        owner, _, field = where.rpartition(".")
        if gained and (owner, field) not in NEW_VALUES:
            yield f"{where} has gained {sorted(map(str, gained))}, which an older reader refuses"
    elif "anyOf" in old:
        for before, after in zip(old["anyOf"], new.get("anyOf", []), strict=False):
            yield from differences(before, after, olds, news, where)
        if len(new.get("anyOf", [])) > len(old["anyOf"]):
            yield f"{where} may be something else now"
    elif "items" in old:
        yield from differences(old["items"], new.get("items", {}), olds, news, where)
    elif old.get("type") != new.get("type") or old.get("const") != new.get("const"):
        yield f"{where} was {old.get('type', old.get('const'))}, is {new.get('type', new.get('const'))}"
