"""Folders of models as they are downloaded: their files, and a disk that takes no large one."""

from __future__ import annotations

import contextlib
import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Damage = Callable[[Path], object]


TOKENIZER: dict[str, Any] = {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}}}


def safetensors(names: list[str], size: int = 8) -> bytes:
    """A safetensors file of bf16 tensors of `size` bytes each, their content made of their names."""
    entries = {
        name: {"dtype": "BF16", "shape": [size // 2], "data_offsets": [i * size, (i + 1) * size]}
        for i, name in enumerate(names)
    }
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + b"".join((name.encode() * size)[:size] for name in names)


def write(folder: Path, files: dict[str, bytes | dict[str, Any]]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


Files = dict[str, bytes | dict[str, Any]]


LLAMA: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 4}


PLAIN: Files = {
    "config.json": LLAMA,
    "tokenizer.json": TOKENIZER,
    "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{{ messages }}"},
    "model.safetensors": safetensors(["a", "b"]),
}
