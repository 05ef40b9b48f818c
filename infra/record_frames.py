"""Records what one release says: every frame and line, as bytes and as a schema, for the releases after it to be held
to.

    python infra/record_frames.py tests/recorded/RELEASE

Two releases run side by side while one takes the other's place (`pilotlight/frames.py`). Each release keeps a folder,
named by its date, made once and never again: `tests/unit/test_recorded.py` reads all of them with today's code. A frame
is recorded twice, with the fields it must have and with all it can have; samples are made from the contracts' own
schemas.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS = (
    "activator.wire:ToActivator",
    "activator.wire:FromActivator",
    "runtime.wire:ToAgent",
    "runtime.wire:FromAgent",
    "runtime.wire:UsageEntry",  # a line of a replica's journal
    "router.ledger.wire:ToLedger",
    "router.ledger.wire:FromLedger",  # and `policy.json`
    "router.spool.record:SpoolLine",
    "router.ledger.shelf:Kept",  # a line of `unpriced.jsonl`
    "runtime.node.last_counts:Snapshot",  # a line of `counts.log`
    "activator.catalogue:Endpoint",  # of `catalogue.json`
)

# where a release called it otherwise
MOVED = {
    "runtime.counts:Snapshot": "runtime.node.last_counts:Snapshot",
    "router.ledger.record:SpoolLine": "router.spool.record:SpoolLine",
}


def adapter(contract: str) -> TypeAdapter[Any]:
    module, _, name = MOVED.get(contract, contract).partition(":")
    return TypeAdapter(getattr(importlib.import_module(module), name))


def schema_of(contract: str) -> dict[str, Any]:
    """JSON Schema of what is said."""
    return adapter(contract).json_schema(mode="serialization")


def frames_of(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The schema of each frame of a contract, by its class's name."""
    if "discriminator" not in schema:
        return {schema["title"]: schema}
    names = [entry["$ref"].rsplit("/", 1)[1] for entry in schema["oneOf"]]
    return {name: schema["$defs"][name] for name in names}


def sample(schema: dict[str, Any], defs: dict[str, Any], *, full: bool) -> Any:
    """A value the schema allows: the smallest, or one with everything in it."""
    if "$ref" in schema:
        return sample(defs[schema["$ref"].rsplit("/", 1)[1]], defs, full=full)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][-1 if full else 0]
    if "anyOf" in schema:
        return sample(schema["anyOf"][0], defs, full=full)
    if "prefixItems" in schema:
        return [sample(item, defs, full=full) for item in schema["prefixItems"]]
    match schema.get("type"):
        case "object" if "properties" in schema:
            always = {
                name for name, field in schema["properties"].items() if "const" in field or "default" not in field
            }
            wanted = schema["properties"] if full else always
            return {
                name: sample(schema["properties"][name], defs, full=full)
                for name in schema["properties"]
                if name in wanted
            }
        case "object":
            inner = schema.get("additionalProperties")
            return {"name": sample(inner, defs, full=full) if isinstance(inner, dict) else 1} if full else {}
        case "array":
            return [sample(schema["items"], defs, full=full)] if full else []
        case kind:
            return {"string": "text", "integer": 7, "number": 1.5, "boolean": True, "null": None}[str(kind)]


def recorded(contract: str) -> Iterator[dict[str, Any]]:
    """Every frame of a contract twice, as its sender writes it."""
    schema, reader = schema_of(contract), adapter(contract)
    for name, of_frame in frames_of(schema).items():
        for full in (False, True):
            frame = reader.validate_python(sample(of_frame, schema.get("$defs", {}), full=full))
            yield {"contract": contract, "frame": name, "line": reader.dump_json(frame).decode()}


def main(folder: Path) -> int:
    if (folder / "frames.jsonl").exists():
        print(f"{folder} is recorded already: a release is recorded once", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(entry) for contract in CONTRACTS for entry in recorded(contract)]
    (folder / "frames.jsonl").write_text("\n".join(lines) + "\n")
    schemas = {contract: schema_of(contract) for contract in CONTRACTS}
    (folder / "schemas.json").write_text(json.dumps(schemas, indent=1, sort_keys=True) + "\n")
    print(f"{len(lines)} frames in {folder}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(Path(sys.argv[1])))
