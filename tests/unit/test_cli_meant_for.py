"""Which task a deploy takes where nobody names one: what the snapshot's files say, else none."""

from __future__ import annotations

import pytest

from pilotlight.cli.endpoints.meant_for import meant_for
from snapshots.manifest import Manifest, SnapshotFile


def manifest(architecture: str, *paths: str) -> Manifest:
    files = tuple(SnapshotFile(path=path, size=1, sha256="0" * 64) for path in sorted(paths))
    return Manifest(architecture=architecture, dtype="float32", tensors=1, tensor_bytes=4, files=files)


@pytest.mark.parametrize(
    ("architecture", "paths", "task", "why"),
    [
        ("LlamaForCausalLM", ("config.json",), None, ""),
        ("BertModel", ("config.json", "modules.json"), "embed", "modules.json"),
        ("Qwen3ForCausalLM", ("modules.json",), "embed", "modules.json"),
        ("BertForSequenceClassification", ("config.json",), "score", "BertForSequenceClassification"),
        ("BertForSequenceClassification", ("modules.json",), "score", "a score"),
    ],
)
def test_a_model_is_deployed_for_what_its_files_say(
    architecture: str, paths: tuple[str, ...], task: str | None, why: str
) -> None:
    found = meant_for(manifest(architecture, *paths))
    assert (found[0] if found else None) == task
    assert found is None or why in found[1]
