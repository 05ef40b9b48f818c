"""Random weights of real shapes, for measuring: `synth(like, target)` makes a folder that an engine serves.

What is measured (bytes read, memory, arithmetic) does not depend on what the weights say; only their sizes and names
must be true. The same `like` and `seed` give the same bytes. The tokenizer is the demo model's, filled with numbers up
to the size of the vocabulary: whatever a random model says is text. A folder killed half-way has another name
(`.new-…`).
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapshots.errors import SnapshotError, StoreFull
from snapshots.store.disk import FULL, free, no_room

Progress = Callable[[int, int], None]  # bytes done, bytes in all

TOKENIZER = Path(__file__).parent / "demo" / "model"
SHARD = 5_000_000_000  # bytes, as published models have it
DEVIATION = 0.02  # of the weights, as models are initialised
VALUES = 2_097_143  # in the block that is repeated: a prime, so that no two rows of a matrix are alike
ONE = b"\x80\x3f"  # 1.0 in bfloat16, little-endian
_COMMON = {
    "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": None, "dtype": "bfloat16", "eos_token_id": 0, "hidden_act": "silu",
    "initializer_range": DEVIATION, "pad_token_id": 1, "use_cache": True,
}  # fmt: skip
_LLAMA = {
    **_COMMON,
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "mlp_bias": False,
    "rms_norm_eps": 1e-5,
}
LIKE: dict[str, dict[str, Any]] = {
    "tiny": {
        **_LLAMA, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 4096, "max_position_embeddings": 2048, "tie_word_embeddings": True,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    },
    "qwen3-0.6b": {
        **_COMMON, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
        "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "max_position_embeddings": 40960, "max_window_layers": 28, "use_sliding_window": False, "sliding_window": None,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
    },
    "llama3-8b": {
        **_LLAMA, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256, "max_position_embeddings": 8192,
        "tie_word_embeddings": False, "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
    },
}  # fmt: skip


@dataclass(frozen=True)
class Weight:
    """One tensor to be made."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes: all weights are bfloat16."""
        return 2 * math.prod(self.shape)


def synth(like: str, target: Path, *, seed: int = 0, progress: Progress | None = None) -> Path:
    """Make the model folder `target`, which must not be there yet. Raises SnapshotError, StoreFull, OSError."""
    if like not in LIKE:
        raise SnapshotError(f"there is no model to be like {like[:100]!r}: choose {', '.join(LIKE)}")
    config = LIKE[like]
    shards = shards_of(weights_of(config))
    total = sum(weight.size for shard in shards for weight in shard)
    with _building(target, total) as work:
        _write_tokenizer(work, config["vocab_size"])
        _write_json(work / "config.json", config)
        _write_json(work / "generation_config.json", {"do_sample": False, "eos_token_id": 0, "pad_token_id": 1})
        _write_weights(work, shards, seed, total, progress)
    return target


def weights_of(config: dict[str, Any]) -> list[Weight]:
    """Every weight of a Llama or Qwen3 of that config, in the order its layers run."""
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    layer = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        **({"self_attn.q_norm": (head,), "self_attn.k_norm": (head,)} if config["model_type"] == "qwen3" else {}),
        "self_attn.o_proj": (hidden, queries),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    vocabulary = (config["vocab_size"], hidden)
    return [
        Weight("model.embed_tokens.weight", vocabulary),
        *(
            Weight(f"model.layers.{n}.{name}.weight", shape)
            for n in range(config["num_hidden_layers"])
            for name, shape in layer.items()
        ),
        Weight("model.norm.weight", (hidden,)),
        *(() if config["tie_word_embeddings"] else (Weight("lm_head.weight", vocabulary),)),
    ]


def shards_of(weights: list[Weight]) -> list[list[Weight]]:
    """The weights in order, as many a shard as fit into SHARD bytes."""
    shards: list[list[Weight]] = [[]]
    for weight in weights:
        if shards[-1] and sum(other.size for other in shards[-1]) + weight.size > SHARD:
            shards.append([])
        shards[-1].append(weight)
    return shards


def normal_block(seed: int) -> memoryview:
    """VALUES numbers of a normal distribution around 0, as bfloat16: the upper halves of float32."""
    gauss = random.Random(seed).gauss
    wide = array("f", [gauss(0.0, DEVIATION) for _ in range(VALUES)]).tobytes()
    block = bytearray(2 * VALUES)
    block[0::2], block[1::2] = wide[2::4], wide[3::4]
    return memoryview(block).toreadonly()


@contextmanager
def _building(target: Path, size: int) -> Iterator[Path]:
    """A folder that takes the name `target` when all of it is written, and is gone otherwise. Raises SnapshotError,
    OSError.
    """
    if target.exists():
        raise SnapshotError(f"{target} is there already: give the name of a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    left = free(target.parent)
    if size > left:
        raise StoreFull(no_room(target.parent, size, left))
    work = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        yield work
        work.chmod(0o755)
        work.rename(target)
    except OSError as error:
        if error.errno in FULL:
            raise StoreFull(no_room(target.parent, size, left)) from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_tokenizer(work: Path, size: int) -> None:
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(TOKENIZER / name, work / name)
    tokenizer = json.loads((TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    vocabulary |= {
        f"Ġ#{number}": number for number in range(len(vocabulary), size)
    }  # Ġ is a space; no merge leads to one
    (work / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def _write_weights(work: Path, shards: list[list[Weight]], seed: int, total: int, progress: Progress | None) -> None:
    block, done, weight_map = normal_block(seed), 0, dict[str, str]()
    for number, shard in enumerate(shards, start=1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        with (work / name).open("wb", buffering=0) as stream:
            stream.write(_header(shard))
            for weight in shard:
                weight_map[weight.name] = name
                for piece in _pieces(weight, block, random.Random(f"{seed} {weight.name}").randrange(VALUES)):
                    _write_all(stream.fileno(), piece)
                    done += len(piece)
                    if progress:
                        progress(done, total)
    if len(shards) > 1:
        _write_json(
            work / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map}
        )


def _header(shard: list[Weight]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for weight in shard:
        entries[weight.name] = {"dtype": "BF16", "shape": weight.shape, "data_offsets": [begin, begin + weight.size]}
        begin += weight.size
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the data begins on a boundary of 8 bytes
    return len(header).to_bytes(8, "little") + header


def _pieces(weight: Weight, block: memoryview, first: int) -> Iterator[memoryview | bytes]:
    """The bytes of a weight: ones for a norm, else the block again and again, beginning at value `first`."""
    if len(weight.shape) == 1:
        yield ONE * weight.shape[0]
        return
    left, begin = weight.size, 2 * first
    while left:
        piece = block[begin : begin + left]
        yield piece
        left, begin = left - len(piece), 0


def _write_all(descriptor: int, content: memoryview | bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
