"""Models that pool, of published shapes, small and with random weights: what their folders say is as their authors'
folders say it.

mean    sentence-transformers/all-MiniLM-L6-v2: BERT, the mean of all tokens, normalised, 256 of 512 positions, an
unused `pooler` cls     BAAI/bge-small-en-v1.5: BERT, the first token, normalised last    Qwen/Qwen3-Embedding-0.6B:
Qwen3, the last token, normalised, an end token that the tokenizer adds
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEXTS = [
    "What is Pilotlight?",
    "A small flame that is always lit, so that the large one is there at once.",
    "scale to zero " * 20,
    "an embedding",
]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?!-"
MODULE = "sentence_transformers.models."
DIM = 128
WIDE = 2560  # of the projection: more than a megabyte of weights


def make(shape: str, folder: Path) -> Path:
    """One of those that make vectors, as a Hugging Face folder."""
    import torch
    from transformers import BertConfig, BertModel, Qwen3Config, Qwen3Model

    torch.manual_seed(7)
    folder.mkdir(parents=True)
    vocabulary = _last(folder) if shape == "last" else _bert(folder)
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": DIM,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    if shape == "last":
        config = Qwen3Config(
            **sizes, num_key_value_heads=2, head_dim=32, max_position_embeddings=1024, tie_word_embeddings=True
        )
        config.architectures = ["Qwen3ForCausalLM"]
        model: Any = Qwen3Model(config).to(torch.bfloat16)
    else:
        model = BertModel(BertConfig(**sizes, max_position_embeddings=512), add_pooling_layer=shape == "mean")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)  # so that texts differ
    model.save_pretrained(folder)
    if shape == "last":
        written = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(written | {"architectures": ["Qwen3ForCausalLM"]}))
    _sentence(
        folder,
        {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken", "dense": "mean_tokens"}[shape],
        dense=shape == "dense",
    )
    if shape == "mean":
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 256, "do_lower_case": False}))
    return folder


def make_reranker(folder: Path) -> Path:
    """cross-encoder/ms-marco-MiniLM-L6-v2's shape: BERT that reads two texts at once and has one label."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(7)
    folder.mkdir(parents=True)
    sizes = {"hidden_size": DIM, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = BertConfig(vocab_size=_bert(folder), max_position_embeddings=512, num_labels=1, **sizes)
    model: Any = BertForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)  # so that pairs differ
    model.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    said = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "5.1.0"}}
    (folder / "config.json").write_text(json.dumps(written | said))
    return folder


def make_late_interaction(folder: Path) -> Path:
    """colbert-ir/colbertv2.0's shape: BERT that gives each token of a text a vector; how long, only its weights say."""
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    torch.manual_seed(7)
    folder.mkdir(parents=True)
    sizes = {"hidden_size": DIM, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = BertConfig(vocab_size=_bert(folder), max_position_embeddings=512, **sizes)
    config.architectures = ["HF_ColBERT"]
    model: Any = BertModel(config, add_pooling_layer=False)
    weights = {f"bert.{name}": weight * (6 if weight.dim() > 1 else 1) for name, weight in model.state_dict().items()}
    save_file({**weights, "linear.weight": torch.randn(64, DIM)}, folder / "model.safetensors", {"format": "pt"})
    config.save_pretrained(folder)
    return folder


def _bert(folder: Path) -> int:
    from transformers import BertTokenizerFast

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=512).save_pretrained(folder)
    return len(tokens)


def _last(folder: Path) -> int:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate(["<|endoftext|>", " ", *LETTERS, *LETTERS.upper()[:26]])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>", padding_side="left"
    )
    fast.save_pretrained(folder)
    return len(vocabulary)


def _sentence(folder: Path, mode: str, *, dense: bool) -> None:
    """What sentence-transformers writes beside the model."""
    names = ("", "1_Pooling", *(("2_Dense", "3_Normalize") if dense else ("2_Normalize",)))
    types = ("Transformer", "Pooling", *(("Dense",) if dense else ()), "Normalize")
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": MODULE + kind}
        for number, (path, kind) in enumerate(zip(names, types, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    pooling = {"word_embedding_dimension": DIM, "include_prompt": True} | {
        f"pooling_mode_{name}": name == mode for name in modes
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if dense:
        _dense(folder / "2_Dense")


def _dense(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    said = {
        "in_features": DIM,
        "out_features": WIDE,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    (folder / "config.json").write_text(json.dumps(said))
    save_file(
        {"linear.weight": torch.randn(WIDE, DIM) / 8, "linear.bias": torch.randn(WIDE) / 8},
        folder / "model.safetensors",
    )
