"""What the engine knows by name, without the engine: `known_to_engine.txt` has the lists. While packing.

They are vLLM's and transformers'. Which of a model's own code can be left out, and which weights nobody here could
multiply, is known before a byte is copied.
"""

from __future__ import annotations

import difflib
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from snapshots.errors import CodeRefused, UnknownModel

Kind = Literal["model_type", "tokenizer", "quantization", "draft", "pooling"]
NOT_ON_CPU = {"modelopt_fp4", "modelopt_mxfp8", "mxfp8"}
CLASSIFIES = "ForSequenceClassification"  # how the names of such architectures end
FORMATS_NOT_ON_CPU = ("nvfp4", "mxfp8", "mxfp6")
ALLOW = "or let code of models run on this machine (snapshots.model_code), if you trust and have read it"


@cache
def known(kind: Kind) -> frozenset[str]:
    lines = files("snapshots").joinpath("known_to_engine.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line.removeprefix(f"{kind} ") for line in lines if line.startswith(f"{kind} "))


def check_without_code(asking: dict[str, str], config: dict[str, Any], tokenizer_config: dict[str, Any]) -> None:
    """Can a model that names code of its own be served without it? `asking`: file → the entry that names code. Raises
    CodeRefused.
    """
    if not asking:
        return
    path, entry = min(asking.items())
    model_type = config.get("model_type")
    if model_type not in known("model_type"):
        raise CodeRefused(
            f"{path} asks for the model's own code ({entry}), and the engine does not know the model type {str(model_type)[:100]!r} of "
            f"config.json without: take a model whose type it knows, {ALLOW}"
        )
    tokenizer = tokenizer_config.get("tokenizer_class")
    if "tokenizer_config.json" in asking and not {tokenizer, f"{tokenizer}Fast"} & known("tokenizer"):
        raise CodeRefused(
            f"tokenizer_config.json asks for the model's own code ({asking['tokenizer_config.json']}), and the engine does not know the tokenizer "
            f"{str(tokenizer)[:100]!r} without: take a model with one of transformers' tokenizers, {ALLOW}"
        )


def check_alone(architecture: str) -> None:
    """Raises UnknownModel for a draft model, which an engine loads beside another only."""
    if architecture in known("draft"):
        raise UnknownModel(
            f"config.json names the architecture {architecture!r}, a draft model that only speculates for another: deploy the model it was made for"
        )


def makes_text(architecture: str) -> bool:
    """Whether the engine could have a model of this architecture generate; True where nobody knows."""
    return architecture not in known("pooling")


def classifies(architecture: str) -> bool:
    """Whether a model of this architecture gives texts a score for each of its labels."""
    return architecture.endswith(CLASSIFIES)


def labels(config: dict[str, Any]) -> int:
    """How many labels a classifying model has, as transformers reads its configuration."""
    named = config.get("id2label")
    return len(named) if isinstance(named, dict) else int(config.get("num_labels") or 2)


def unfit_here(config: dict[str, Any], device: str) -> str:
    """Why weights quantized so cannot be multiplied on this device; "" where they can, as far as the engine's tables of
    kernels tell.
    """
    found = config.get("quantization_config") or config.get("compression_config")
    if device != "cpu" or not isinstance(found, dict):
        return ""
    method, algorithm, packed = (str(found.get(key, "")).lower() for key in ("quant_method", "quant_algo", "format"))
    if method in NOT_ON_CPU or algorithm.startswith(FORMATS_NOT_ON_CPU) or packed.startswith(FORMATS_NOT_ON_CPU):
        said = next(
            text for text in (algorithm, packed if packed.startswith(FORMATS_NOT_ON_CPU) else "", method) if text
        )
        return f"its weights are quantized by {said[:100]!r}, for which the engine has nothing on CPUs: take them unquantized, or as awq, gptq, int8 or fp8"
    return ""


def check_quantization(config: dict[str, Any]) -> None:
    """Raises UnknownModel for weights quantized in a way the engine does not know, on any device."""
    nested = config.get("text_config")
    for part in (config, nested if isinstance(nested, dict) else {}):
        found = part.get("quantization_config") or part.get("compression_config")
        method = found.get("quant_method") if isinstance(found, dict) else None
        if isinstance(method, str) and method.lower().replace("_", "-") not in {
            name.replace("_", "-") for name in known("quantization")
        }:
            near = difflib.get_close_matches(method[:100], sorted(known("quantization")), n=3, cutoff=0.6)
            raise UnknownModel(
                f"config.json says the weights are quantized by {method[:100]!r}, which the engine (vLLM) does not read"
                + (f"; the nearest it reads: {', '.join(near)}" if near else "")
                + ". Take the model unquantized, or quantized otherwise (awq, gptq, compressed-tensors, fp8)"
            )
