"""What the files of a snapshot say about themselves: no code, all shards, how many tensors, which architecture.

Runs on the copies that will be kept, not on the folder they came from: that may change between a look and a read.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from snapshots.architectures import check_known
from snapshots.errors import CodeRefused, Incomplete, PackError
from snapshots.safetensors_header import Header, read_header

INDEX = "model.safetensors.index.json"
VOCABULARIES = {"tokenizer.json", "vocab.json", "added_tokens.json"}  # a token may be spelt "auto_map"
DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors", re.ASCII)


@dataclass(frozen=True)
class Facts:
    architecture: str
    dtype: str
    tensors: int
    tensor_bytes: int


def find_facts(folder: Path, paths: list[str]) -> Facts:
    """Check the files named by `paths` below `folder`. Raises HeaderError, PackError, OSError."""
    texts = [path for path in paths if path.endswith(".json") and PurePosixPath(path).name not in VOCABULARIES]
    documents = {path: _document(folder / path, path) for path in texts}
    headers = {path: read_header(folder / path) for path in paths if path.endswith(".safetensors")}
    for path, document in documents.items():
        if PurePosixPath(path).name == INDEX:
            _check_index(path, document, headers)
    _check_numbering(set(headers))
    tensors = [tensor for header in headers.values() for tensor in header.tensors]
    if not tensors:
        raise Incomplete("the weights hold no tensor at all: get them anew from where they came from")
    architecture, dtype = _config(documents["config.json"])
    most = Counter[str]()
    for tensor in tensors:
        most[tensor.dtype] += tensor.end - tensor.begin
    common = most.most_common(1)[0][0]
    return Facts(architecture, dtype or DTYPES.get(common, common.lower()), len(tensors), sum(most.values()))


def _document(file: Path, path: str) -> dict[str, Any]:
    """A JSON file that names no code. Also of names given twice every one is looked at. Raises PackError."""

    def refuse_code(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for key, value in pairs:
            if key in ("auto_map", "custom_pipelines") and value:
                raise CodeRefused(
                    f"{path} asks for the model's own code ({key}): remove that entry, if vLLM knows the architecture without"
                )
        return dict(pairs)

    try:
        document = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=refuse_code)
    except (ValueError, RecursionError) as error:
        raise PackError(f"{path} is no JSON ({str(error)[:200]}): get it anew from where it came from") from None
    return document if isinstance(document, dict) else {}


def _config(config: dict[str, Any]) -> tuple[str, str]:
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures or not isinstance(architectures[0], str):
        raise Incomplete('config.json names no architecture: it needs "architectures": ["…"], as in the model\'s repository')
    check_known(architectures[0])
    nested = config.get("text_config")
    named = [part.get(key) for part in (config, nested) if isinstance(part, dict) for key in ("dtype", "torch_dtype")]
    return architectures[0], next((name.removeprefix("torch.") for name in named if isinstance(name, str)), "")


def _check_index(path: str, index: dict[str, Any], headers: dict[str, Header]) -> None:
    """Every tensor the index promises is in the shard it names. Raises PackError."""
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise PackError(f"{path} has no weight_map: get it anew from where it came from")
    promised: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        promised.setdefault(shard, set()).add(tensor)
    for shard, names in sorted(promised.items()):
        header = headers.get(str(PurePosixPath(path).parent / shard))
        if header is None:
            raise Incomplete(f"{path} needs {shard}, which is not there: the download is not complete, run it again")
        if missing := names - {tensor.name for tensor in header.tensors}:
            raise Incomplete(
                f"{shard} lacks {len(missing)} tensors that {path} says it has ({min(missing)!r}): get both from the same revision"
            )


def _check_numbering(paths: set[str]) -> None:
    """`name-00001-of-00003.safetensors` asks for its siblings, index or not. Raises Incomplete."""
    for path in sorted(paths):
        shard = _SHARD.fullmatch(path)
        if shard is None:
            continue
        for number in range(1, int(shard["count"]) + 1):
            sibling = f"{shard['stem']}-{number:05d}-of-{shard['count']}.safetensors"
            if sibling not in paths:
                raise Incomplete(f"{sibling} is not there, but {path} is: the download is not complete, run it again")
