"""Whether a model has a tokenizer that the engine reads, and a row for each of its tokens. Asked of files alone.

A model without one starts and fails at its first call; a token without a row ends the engine, and everybody's answers
with it. It must survive files that are not tokenizers: they are refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snapshots.errors import CodeRefused, Incomplete, PackError
from snapshots.texts import ANEW, read_json

SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
OF_BYTES = {"ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer"}  # these have no vocabulary
# Published text-only models whose tokenizer has a marker of their family's larger ones, without a row: nobody means to
# send it, and the router refuses ids without a row.
MARKERS = {"<image_soft_token>"}
# Entries of tokenizer_config.json that transformers takes as what a vocabulary holds, or, where they are text, as the
# path of a file anywhere on the machine: its lines would be tokens, which whoever calls the model reads. (What it takes
# as paths otherwise it replaces by the model's own.)
PATHS = ("vocab", "merges", "entity_vocab", "tokenizer_path")


def check_tokenizer(
    folder: Path, paths: list[str], documents: dict[str, dict[str, Any]], rows: int | None, placeholders: set[int]
) -> None:
    """`rows`: of the model's vocabulary, where known. `placeholders`: numbers that need none. Raises CodeRefused,
    Incomplete, PackError.
    """
    check_paths(documents.get("tokenizer_config.json", {}))
    there = {path for path in paths if "/" not in path}
    ids = _ids(folder, there, documents)
    for path in ("tokenizer_config.json", "added_tokens.json"):
        ids |= _added(documents.get(path, {}), path)
    most = max(
        (number for token, number in ids.items() if token not in MARKERS and number not in placeholders), default=-1
    )
    if rows is not None and most >= rows:
        token = next(token for token, number in ids.items() if number == most)
        raise Incomplete(
            f"the tokenizer has the token {token[:40]!r} with the number {most}, but the model has {rows} rows (0 to {rows - 1}; vocab_size in "
            "config.json): a call with it would end the engine. Take tokenizer and weights from the same revision, or resize the model "
            "(transformers: `model.resize_token_embeddings(len(tokenizer))`) and save it anew"
        )


def check_paths(config: dict[str, Any]) -> None:
    """Of tokenizer_config.json: a model reads its own files, and no others. Raises CodeRefused."""
    if named := next((name for name in PATHS if isinstance(config.get(name), str)), None):
        raise CodeRefused(
            f"tokenizer_config.json has {config[named][:100]!r} as its '{named}', which is read as a file of this machine: remove that entry, and "
            "put the tokenizer's own files into the folder"
        )


def _ids(folder: Path, there: set[str], documents: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Token → number, from the first file of those an engine would read."""
    if "tokenizer.json" in there:
        return _fast(_json(folder / "tokenizer.json", "tokenizer.json"))
    if "vocab.json" in there and "merges.txt" in there:
        return _numbers(_json(folder / "vocab.json", "vocab.json"))
    if "vocab.txt" in there:
        lines = (folder / "vocab.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        return {line: number for number, line in enumerate(lines)}
    if "tekken.json" in there:
        size = documents.get("tekken.json", {}).get("config", {})
        most = size.get("default_vocab_size") if isinstance(size, dict) else None
        return {"the last": most - 1} if isinstance(most, int) else {}
    for name in SENTENCEPIECE:
        if name in there:
            pieces = _pieces((folder / name).read_bytes())
            if not pieces:
                raise PackError(f"{name} is not a SentencePiece model: {ANEW}, or save the tokenizer as tokenizer.json")
            return {"the last": pieces - 1}
    if documents.get("tokenizer_config.json", {}).get("tokenizer_class") in OF_BYTES:
        return {}
    raise Incomplete(
        f"{folder} holds no tokenizer: it needs tokenizer.json (or vocab.json with merges.txt, vocab.txt, tekken.json or a SentencePiece "
        "*.model), from the model's repository; other kinds, such as *.tiktoken, are saved anew as tokenizer.json by transformers "
        "(`AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)`)"
    )


def _json(file: Path, path: str) -> dict[str, Any]:
    found = read_json(file.read_bytes(), path)
    if not isinstance(found, dict):
        raise PackError(f"{path} is not a tokenizer: {ANEW}")
    return found


def _fast(document: dict[str, Any]) -> dict[str, int]:
    """Of the file of the tokenizers library: a vocabulary by token, or a list of pieces; and what was added."""
    model = document.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        ids = _numbers(vocabulary)
    elif isinstance(vocabulary, list):
        ids = {
            str(piece[0]) if isinstance(piece, list) and piece else "": number
            for number, piece in enumerate(vocabulary)
        }
    else:
        raise PackError(f"tokenizer.json holds no model with a vocabulary: {ANEW}")
    added = document.get("added_tokens")
    for token in added if isinstance(added, list) else []:
        if isinstance(token, dict) and isinstance(token.get("id"), int):
            ids[str(token.get("content"))] = token["id"]
    return ids


def _added(document: dict[str, Any], path: str) -> dict[str, int]:
    if path == "added_tokens.json":
        return _numbers(document)
    found = document.get("added_tokens_decoder")
    return {
        str(token.get("content")): int(number)
        for number, token in (found.items() if isinstance(found, dict) else ())
        if isinstance(token, dict) and number.isascii() and number.isdecimal() and len(number) < 10
    }


def _numbers(document: dict[str, Any]) -> dict[str, int]:
    return {token: number for token, number in document.items() if isinstance(number, int)}


def _pieces(content: bytes) -> int:
    """How many pieces a SentencePiece model has: the entries of field 1 of its protobuf; 0 for anything else."""
    at, pieces = 0, 0
    while at < len(content):
        tag, at = _varint(content, at)
        if tag & 7 == 2:
            length, at = _varint(content, at)
            at += length
            pieces += tag >> 3 == 1
        elif tag & 7 == 0:
            _, at = _varint(content, at)
        else:
            at += {1: 8, 5: 4}.get(tag & 7, len(content) + 1)
    return pieces if at == len(content) else 0


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends; beyond the end of the content where it has none."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            break
        number |= (content[at] & 0x7F) << shift
        at += 1
        if not content[at - 1] & 0x80:
            return number, at
    return 0, len(content) + 1
