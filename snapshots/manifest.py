"""What a snapshot is: an immutable list of files, and a digest that names it and nothing else. Step 9.

The digest is SHA-256 over the manifest's canonical JSON, which holds the SHA-256 of every file. So whoever knows the
digest can check every byte, and the same model packed twice, anywhere, has the same digest. It must survive a manifest
written by somebody else. Paths that leave the folder, sizes below zero and unknown fields are refused before anything
is opened.

Files longer than CHUNK also have the SHA-256 of each of their chunks, so that a transfer can trust each as it arrives.
A manifest from before there were chunks has none, is spelt without, and keeps its digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from snapshots.errors import NotStored, TamperedError

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 64 << 20  # bytes
CHUNK = 8 << 20  # bytes; part of the format
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_FOLDER = re.compile(r"sha256-[0-9a-f]{64}", re.ASCII)


def is_path(path: str) -> bool:
    """Could a file in a snapshot have it?"""
    inside = not any(part in ("", ".", "..") or part.startswith(".") for part in path.split("/"))
    return inside and path.isprintable() and "\\" not in path and path != MANIFEST


def _inside(path: str) -> str:
    if not is_path(path):
        raise ValueError(f"{path!r} is not a path of a file in a snapshot")
    return path


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}\z")]


class SnapshotFile(BaseModel):
    """One file of a snapshot: its path below the folder, its bytes and their SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[str, AfterValidator(_inside)]  # below the snapshot's folder, with /
    size: int = Field(ge=0)  # bytes
    sha256: Sha256
    chunks: tuple[
        Sha256, ...
    ] = ()  # of each CHUNK bytes in order, the last shorter; none where the file is not longer than one

    @model_validator(mode="after")
    def _all_chunks_or_none(self) -> SnapshotFile:
        if self.chunks and (self.size <= CHUNK or len(self.chunks) != -(-self.size // CHUNK)):
            raise ValueError(f"{self.path} of {self.size} bytes does not have {len(self.chunks)} chunks")
        return self


class Manifest(BaseModel):
    """The list of a snapshot's files, and what is known of the model. Its digest is the snapshot's name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    architecture: str  # as config.json has it: "LlamaForCausalLM"
    dtype: str  # "bfloat16"
    tensors: int = Field(ge=1)
    tensor_bytes: int = Field(ge=0)
    files: tuple[SnapshotFile, ...]  # sorted by path, each once

    @model_validator(mode="after")
    def _sorted_once(self) -> Manifest:
        paths = [file.path for file in self.files]
        if paths != sorted(set(paths)):
            raise ValueError("the files are not sorted by path, each once")
        return self

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def canonical(self) -> bytes:
        """The one spelling of this manifest, which `manifest.json` holds and the digest is taken over."""
        document = self.model_dump(mode="json")
        for file in document["files"]:
            if not file["chunks"]:
                del file["chunks"]
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.canonical()).hexdigest()


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def folder_name(digest: str) -> str:
    """A digest as the name of a folder: `sha256-…`. Raises NotStored where it is not a digest, so that no path can be
    smuggled in.
    """
    if not is_digest(digest):
        raise NotStored(
            f"{digest[:100]!r} is not a digest: write sha256: and 64 hex digits (`pilotlight snapshot ls` shows them)"
        )
    return digest.replace(":", "-")


def digest_of_folder(name: str) -> str | None:
    """The digest a folder's name stands for; None for any other name."""
    return name.replace("-", ":") if _FOLDER.fullmatch(name) else None


def read_manifest(folder: Path, digest: str) -> Manifest:
    """The manifest in `folder`, which must be the very one of `digest`. Raises TamperedError, OSError."""
    file = folder / MANIFEST
    return parse_manifest(file.read_bytes() if file.stat().st_size <= LARGEST_MANIFEST else b"", digest, str(file))


def parse_manifest(
    content: bytes, digest: str, name: str, remedy: str = "remove the snapshot and pack it again"
) -> Manifest:
    """A manifest, which must be the very one of `digest`; errors call it `name`. Raises TamperedError."""
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise TamperedError(f"{name} is not a manifest ({error.error_count()} errors): {remedy}") from None
    if manifest.canonical() != content or manifest.digest != digest:
        raise TamperedError(f"{name} is not the manifest of {digest}: {remedy}")
    return manifest
