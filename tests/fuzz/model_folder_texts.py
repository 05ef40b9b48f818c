"""The texts of a model folder (config, index, tokenizer, templates): they are refused with words, or believed; they
never break the packer.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from snapshots.errors import SnapshotError
from snapshots.facts import find_facts
from snapshots.model_folder import look

_HEADER = b'{"model.embed_tokens.weight":{"dtype":"U8","shape":[2,1],"data_offsets":[0,2]}}'
_WEIGHTS = len(_HEADER).to_bytes(8, "little") + _HEADER + b"ab"
NAMES = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json", "modules.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json", "tekken.json", "generation_config.json",
)  # fmt: skip
_CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 2}
_TOKENIZER = {"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1, "content": "b"}]}


def _seed(**texts: object) -> bytes:
    """Texts between lines of NUL, each behind the number of its name."""
    by_name = {name.replace(".", "_"): number for number, name in enumerate(NAMES)}
    parts = [
        bytes([by_name[name]]) + (text if isinstance(text, bytes) else json.dumps(text).encode())
        for name, text in texts.items()
    ]
    return b"\0\0".join(parts)


SEEDS = (
    _seed(
        config_json=_CONFIG,
        tokenizer_json=_TOKENIZER,
        tokenizer_config_json={"chat_template": "{% for m in messages %}{{ m }}{% endfor %}"},
    ),
    _seed(
        config_json=_CONFIG,
        tokenizer_json={"model": {"vocab": [["a", 0.5]]}},
        chat_template_jinja=b"{% generation %}{% endgeneration %}",
    ),
    _seed(
        config_json=_CONFIG,
        vocab_json={"a": 0},
        merges_txt=b"a b\n",
        model_safetensors_index_json={"weight_map": {"x": "model.safetensors"}},
    ),
    _seed(
        config_json=_CONFIG | {"auto_map": {"a": "b.C"}},
        tokenizer_model=b"\x0a\x05\x0a\x03abc",
        added_tokens_json={"b": 1},
    ),
    _seed(
        config_json={"text_config": _CONFIG, **_CONFIG, "quantization_config": {"quant_method": "awq"}},
        vocab_txt=b"a\nb\n",
    ),
    _seed(
        config_json=_CONFIG,
        tekken_json={"config": {"default_vocab_size": 2}},
        modules_json=[{"path": "1_Pooling", "type": "x.Pooling"}],
    ),
)


def target(data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="fuzz-folder-") as name:
        folder = Path(name)
        (folder / "model.safetensors").write_bytes(_WEIGHTS)
        for part in data.split(b"\0\0")[: len(NAMES)]:
            if part:
                (folder / NAMES[part[0] % len(NAMES)]).write_bytes(part[1:])
        try:
            found = look(folder)
            find_facts(found.root, [source.path for source in found.sources])
        except SnapshotError as error:
            assert len(str(error)) < 2000, len(str(error))
