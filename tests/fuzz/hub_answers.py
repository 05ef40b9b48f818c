"""What a hub answers of a repository: the names in its listing, its index and its small files. Nothing it says may do
more than be refused.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from snapshots.errors import SnapshotError
from snapshots.hub_files import Listed, check_before_weights, chosen, escaped, first_files, git_hash, small_files
from snapshots.lineage import parse
from snapshots.manifest import is_path

SEEDS = (
    json.dumps(
        {"config.json": '{"architectures": ["LlamaForCausalLM"]}', "tokenizer.json": "{}", "model.safetensors": ""}
    ).encode(),
    json.dumps({"adapter_config.json": '{"base_model_name_or_path": "a/b"}', "adapter_model.safetensors": ""}).encode(),
    json.dumps(
        {
            "model.safetensors.index.json": '{"weight_map": {"x": "a.safetensors"}}',
            "a.safetensors": "",
            "config.json": "{}",
        }
    ).encode(),
    json.dumps(
        {"../../x.json": "{}", "modules.json": '[{"path": "1_Pooling", "type": "x"}]', "config.json": "[]"}
    ).encode(),
    b'{"format": 1, "steps": [{"origin": "hf://org/name"}]}',
)


def target(data: bytes) -> None:
    """A repository as name → content; small files are written where a download would put them."""
    try:
        parse(data, "lineage")
    except SnapshotError:
        pass
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(found, dict):
        files = {name: str(content).encode("utf-8", "replace") for name, content in found.items()}
        with tempfile.TemporaryDirectory(prefix="fuzz-hub-") as folder:
            _fetch(Path(folder), files)


def _fetch(folder: Path, files: dict[str, bytes]) -> None:
    listed = Listed(
        "c" * 40,
        "",
        {name: len(content) for name, content in files.items()},
        {},
        {n: git_hash(c) for n, c in files.items()},
    )
    try:
        first = first_files(listed)
        _write(folder, first, files)
        selection = chosen(folder, listed)
        assert all(is_path(path) and path in files for path in selection.taken), selection.taken
        assert all(escaped(path) for path in selection.taken)
        _write(folder, small_files(selection), files)
        check_before_weights(folder, selection)
    except SnapshotError as error:
        assert len(str(error)) < 4000, len(str(error))


def _write(folder: Path, names: list[str], files: dict[str, bytes]) -> None:
    for name in names:
        file = folder / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(files[name])
        except OSError:  # a name too long for this disk, or a folder of the same name: no download would come here
            raise SnapshotError("no such file can be") from None
