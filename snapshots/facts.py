"""What the files of a snapshot say about themselves: no code asked for, all shards, a tokenizer, which architecture.

It runs on the copies that will be kept, not on the folder they came from: that may change between a look and a read.
What cannot work is refused here, in a line, and not by an engine at the first call.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from snapshots.architectures import check_known
from snapshots.chat_templates import NONE, check_chat_templates
from snapshots.embedding import check_modules, is_embedding
from snapshots.errors import Incomplete, PackError
from snapshots.known import check_alone, check_quantization, check_without_code
from snapshots.safetensors_header import Header, Tensor, read_header
from snapshots.selection import INDEX, check_numbering, spoken, weight_map
from snapshots.texts import read_json
from snapshots.tokenizer_files import check_tokenizer

VOCABULARIES = {"tokenizer.json", "vocab.json", "added_tokens.json"}  # a token may be spelt "auto_map"
ASKS_FOR_CODE = ("auto_map", "custom_pipelines")
DTYPES = {
    "BF16": "bfloat16",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
PLACEHOLDER = re.compile(r".*(image|audio|video|vision).*_(token_id|token_index)", re.ASCII)
GENERATES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ChatModel")
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "tok_embeddings.weight")


@dataclass(frozen=True)
class Facts:
    """What a snapshot is, by its own files."""

    architecture: str
    dtype: str
    tensors: int
    tensor_bytes: int
    notes: tuple[str, ...] = ()  # what whoever packs should hear


def find_facts(folder: Path, paths: list[str], *, code: bool = False, begun: bool = False, twice: bool = True) -> Facts:
    """Check the files named by `paths` below `folder`. `code`: the model's own may run. `begun`: of the weights only
    the tables are there, and what takes long is left for later. `twice`: tensors in several files are compared. Raises
    HeaderError, PackError, OSError.
    """
    documents = read_documents(folder, paths, code=code)
    headers = {path: read_header(folder / path) for path in paths if path.endswith(".safetensors")}
    if INDEX in documents:
        _check_index(documents[INDEX], headers)
    else:
        check_numbering(set(headers))
    if twice:
        _check_twice(folder, {path: header for path, header in headers.items() if "/" not in path})
    tensors = [tensor for header in headers.values() for tensor in header.tensors]
    if not tensors:
        raise Incomplete("the weights hold no tensor at all: get them anew from where they came from")
    architecture, dtype, notes = check_documents(folder, paths, documents, tensors, code=code, begun=begun)
    most = Counter[str]()
    for tensor in tensors:
        most[tensor.dtype] += tensor.end - tensor.begin
    common = most.most_common(1)[0][0]
    return Facts(architecture, dtype or DTYPES.get(common, common.lower()), len(tensors), sum(most.values()), notes)


def read_documents(folder: Path, paths: list[str], *, code: bool = False) -> dict[str, dict[str, Any]]:
    """Those of its texts that are no vocabularies, which must not ask for code unless that may run. Raises PackError,
    OSError.
    """
    asking: dict[str, str] = {}
    texts = [
        path
        for path in paths
        if path.endswith(".json") and (PurePosixPath(path).name not in VOCABULARIES or path == "added_tokens.json")
    ]
    documents = {path: _document(folder / path, path, asking) for path in texts}
    if not code:
        check_without_code(asking, documents["config.json"], documents.get("tokenizer_config.json", {}))
    return documents


def check_documents(
    folder: Path,
    paths: list[str],
    documents: dict[str, dict[str, Any]],
    tensors: list[Tensor],
    *,
    code: bool = False,
    begun: bool = False,
) -> tuple[str, str, tuple[str, ...]]:
    """Architecture, dtype as config.json has it, and what whoever packs should hear. `tensors`: none where its weights
    are not here yet; `begun`: as for `find_facts`. Raises PackError, OSError.
    """
    config = documents["config.json"]
    architecture, dtype = _config(config)
    check_quantization(config)
    if not code and not begun:
        check_tokenizer(folder, paths, documents, _rows(config, tensors), _placeholders(config))
    chats = begun or check_chat_templates(folder, paths, documents)
    notes = check_modules(paths, lambda path: (folder / path).read_bytes())
    if not chats and architecture.endswith(GENERATES) and not is_embedding(paths):
        notes += (NONE,)
    return architecture, dtype, notes


def _document(file: Path, path: str, asking: dict[str, str]) -> dict[str, Any]:
    """A JSON file; that it names code is noted in `asking`. Also of names given twice every one is looked at. Raises
    PackError.
    """

    def note_code(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for key, value in pairs:
            if key in ASKS_FOR_CODE and value:
                asking[path] = key
        return dict(pairs)

    document = read_json(file.read_bytes(), path, pairs=dict if path == "added_tokens.json" else note_code)
    return document if isinstance(document, dict) else {}


def _config(config: dict[str, Any]) -> tuple[str, str]:
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures or not isinstance(architectures[0], str):
        raise Incomplete(
            'config.json names no architecture: it needs "architectures": ["…"], as in the model\'s repository'
        )
    check_known(architectures[0])
    check_alone(architectures[0])
    nested = config.get("text_config")
    named = [part.get(key) for part in (config, nested) if isinstance(part, dict) for key in ("dtype", "torch_dtype")]
    return architectures[0], next((name.removeprefix("torch.") for name in named if isinstance(name, str)), "")


def _rows(config: dict[str, Any], tensors: list[Tensor]) -> int | None:
    """Of the model's vocabulary: what its config says, and its largest table of embeddings has; None where neither
    does.
    """
    nested = config.get("text_config")
    sizes = [part.get("vocab_size") for part in (config, nested) if isinstance(part, dict)]
    said = max((size for size in sizes if isinstance(size, int) and size > 0), default=None)
    tables = [tensor.shape[0] for tensor in tensors if tensor.name.endswith(EMBEDDINGS) and len(tensor.shape) == 2]
    return min((size for size in (said, max(tables, default=None)) if size), default=None)


def _placeholders(config: Any) -> set[int]:
    """Numbers of tokens that stand for images, sounds or films: an engine puts those in their place, and needs no rows
    for them.
    """
    found, pending = set[int](), [config]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            found |= {value for key, value in part.items() if isinstance(value, int) and PLACEHOLDER.fullmatch(key)}
        pending += [
            inner for inner in (part.values() if isinstance(part, dict) else part) if isinstance(inner, dict | list)
        ]
    return found


def _check_index(index: dict[str, Any], headers: dict[str, Header]) -> None:
    """Every tensor the index promises is in the shard it names. Raises PackError."""
    promised: dict[str, set[str]] = {}
    for tensor, shard in weight_map(index, INDEX).items():
        promised.setdefault(shard, set()).add(tensor)
    for shard, names in sorted(promised.items()):
        header = headers.get(shard)
        if header is None:
            raise Incomplete(
                f"{INDEX} needs {spoken(shard)}, which is not there: the download is not complete, run it again"
            )
        if missing := names - {tensor.name for tensor in header.tensors}:
            raise Incomplete(
                f"{shard} lacks {len(missing)} tensors that {INDEX} says it has ({min(missing)[:100]!r}): get both from the same revision"
            )


def _check_twice(folder: Path, headers: dict[str, Header]) -> None:
    """A tensor in two files is the same in both, or nobody knows which one an engine would take. Raises PackError."""
    seen: dict[str, tuple[str, Tensor]] = {}
    for path, header in sorted(headers.items()):
        for tensor in header.tensors:
            first = seen.setdefault(tensor.name, (path, tensor))
            if first[0] != path and _content(folder, *first) != _content(folder, path, tensor):
                raise PackError(
                    f"{first[0]} and {path} both hold the tensor {tensor.name[:100]!r}, and not the same: remove the file that does not belong to "
                    "the model, or save the model anew"
                )


def _content(folder: Path, path: str, tensor: Tensor) -> tuple[str, tuple[int, ...], str]:
    with (folder / path).open("rb") as stream:
        stream.seek(tensor.begin)
        digest, left = hashlib.sha256(), tensor.end - tensor.begin
        while left and (piece := stream.read(min(left, 8 << 20))):
            digest.update(piece)
            left -= len(piece)
    return tensor.dtype, tensor.shape, digest.hexdigest()
