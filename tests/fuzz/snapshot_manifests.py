"""A snapshot's manifest, written by others: no path leaves its folder, what is accepted is spelt in one way, and names
are judged.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from snapshots.errors import SnapshotError
from snapshots.judging import judge_names
from snapshots.manifest import Manifest, parse_manifest

_FILES: list[dict[str, object]] = [
    {"path": path, "size": 1, "sha256": "0" * 64, "chunks": []}
    for path in ("1_Pooling/config.json", "config.json", "model.safetensors")
]
_FACTS = {"format": 1, "architecture": "LlamaForCausalLM", "dtype": "bfloat16", "tensors": 1, "tensor_bytes": 1}

SEEDS = (
    json.dumps(_FACTS | {"files": _FILES}).encode(),
    json.dumps(_FACTS | {"files": [{"path": "../x.py", "size": -1, "sha256": "x", "chunks": ["0" * 64]}]}).encode(),
    json.dumps(_FACTS | {"files": [{"path": "a", "size": 9 << 20, "sha256": "0" * 64, "chunks": ["0" * 64, "1" * 64]}]}).encode(),
)  # fmt: skip


def target(data: bytes) -> None:
    try:
        manifest = Manifest.model_validate_json(data)
    except ValueError:
        return
    for file in manifest.files:
        path = PurePosixPath(file.path)
        assert not path.is_absolute() and ".." not in path.parts and str(path) == file.path, file.path
    assert parse_manifest(manifest.canonical(), manifest.digest, "x") == manifest
    try:
        judge_names(manifest)
    except SnapshotError as error:
        assert len(str(error)) < 1000, len(str(error))
        return
    assert not any(file.path.lower().endswith((".py", ".bin", ".pt", ".so", ".pkl")) for file in manifest.files)
