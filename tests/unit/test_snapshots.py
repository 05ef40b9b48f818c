"""A snapshot is all of the model or nothing, holds no code, is named by its content, and a changed byte is refused by
name.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from snapshots import stage as staging
from snapshots.architectures import known
from snapshots.errors import (
    CodeRefused,
    HeaderError,
    Incomplete,
    NotStored,
    PackError,
    SnapshotError,
    StoreFull,
    TamperedError,
    UnknownModel,
)
from snapshots.manifest import CHUNK, MANIFEST, Manifest, SnapshotFile, folder_name, is_digest
from snapshots.pack import manifest_of, pack
from snapshots.stage import stage
from snapshots.store.disk import digests, path_of
from snapshots.verify import verify
from tests.model_folders import Damage, no_file_larger_than, safetensors, write

WEIGHTS = "model-00001-of-00002.safetensors"


def lying(*, end: int = 4, data: int = 8, dtype: str = "U8") -> bytes:
    """A file of two tensors, bytes 0 to `end` and 4 to 8 as far as the header goes, and `data` bytes."""
    entries = {
        name: {"dtype": dtype, "shape": [e - b], "data_offsets": [b, e]} for name, b, e in (("a", 0, end), ("b", 4, 8))
    }
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + bytes(data)


def remove(*files: Path) -> None:
    for file in files:
        file.parent.chmod(0o755)
        file.unlink()


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: syncing to a real disk proves nothing here and takes seconds."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        dir=memory if os.access(memory, os.W_OK) else tmp_path, ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of two shards, as Hugging Face would have it."""
    shards: dict[str, bytes | dict[str, Any]] = {
        f"model-0000{i}-of-00002.safetensors": safetensors([f"layer.{i}.a", f"layer.{i}.b"]) for i in (1, 2)
    }
    weight_map = {f"layer.{i}.{part}": f"model-0000{i}-of-00002.safetensors" for i in (1, 2) for part in "ab"}
    texts: dict[str, bytes | dict[str, Any]] = {
        "config.json": {"architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16"},
        "model.safetensors.index.json": {"metadata": {}, "weight_map": weight_map},
        "tokenizer.json": {"model": {"vocab": {"auto_map": 7}}},  # a token may be spelt so
        "tokenizer.model": b"\x0a\x0b",
        "chat_template.jinja": b"{{ messages }}",
        "1_Pooling/config.json": {"pooling_mode_cls_token": True},
        "README.md": b"left out",
        ".cache/pickle.bin": b"hidden, left out",
    }
    return write(tmp_path / "model", texts | shards)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "store"
    for parent, _, _ in os.walk(tmp_path / "store"):  # so that pytest can remove it where we are not root
        Path(parent).chmod(0o700)


def test_pack_makes_an_immutable_copy(model: Path, store: Path) -> None:
    manifest = pack(model, store)
    folder = path_of(store, manifest.digest)
    assert digests(store) == [manifest.digest]
    assert is_digest(manifest.digest)
    assert verify(folder) == manifest
    assert (manifest.architecture, manifest.dtype, manifest.tensors, manifest.tensor_bytes) == (
        "LlamaForCausalLM",
        "bfloat16",
        4,
        32,
    )
    assert [file.path for file in manifest.files] == [
        "1_Pooling/config.json",
        "chat_template.jinja",
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer.model",
    ]
    for file in manifest.files:
        assert (folder / file.path).read_bytes() == (model / file.path).read_bytes()
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()} == {0o444}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "1_Pooling")} == {0o755}


def test_the_digest_is_of_the_content_alone(model: Path, store: Path, tmp_path: Path) -> None:
    first = pack(model, store)
    (model / "config.json").touch()
    assert pack(model, tmp_path / "another") == first
    (model / "tokenizer.model").write_bytes(b"\x0a\x0c")
    assert pack(model, store).digest != first.digest
    assert len(digests(store)) == 2


def test_packing_again_writes_nothing(model: Path, store: Path) -> None:
    first = pack(model, store)
    before = store.stat().st_mtime_ns
    assert pack(model, store) == first
    assert store.stat().st_mtime_ns == before


def test_progress_ends_with_all(model: Path, store: Path) -> None:
    told: list[tuple[int, int]] = []
    manifest = pack(model, store, lambda done, total: told.append((done, total)))
    assert told[-1] == (manifest.size, manifest.size)
    assert told == sorted(told)


def test_dtype_is_found_in_the_weights_where_the_config_is_silent(model: Path, store: Path) -> None:
    write(model, {"config.json": {"architectures": ["Qwen3ForCausalLM"]}})
    assert pack(model, store).dtype == "bfloat16"


REFUSED: list[tuple[str, Damage, type[SnapshotError], str]] = [
    (
        "auto_map",
        lambda m: write(m, {"config.json": {"architectures": ["Qwen3ForCausalLM"], "auto_map": {"a": "b"}}}),
        CodeRefused,
        r"config\.json.*auto_map",
    ),
    (
        "auto_map deep",
        lambda m: write(m, {"tokenizer_config.json": {"a": [{"auto_map": "b"}]}}),
        CodeRefused,
        "tokenizer_config",
    ),
    (
        "auto_map hidden",
        lambda m: write(m, {"x.json": b'{"auto_map": {"a": 1}, "auto_map": null}'}),
        CodeRefused,
        "auto_map",
    ),
    (
        "link out",
        lambda m: (m / "vocab.txt").symlink_to("/etc/passwd"),
        CodeRefused,
        r"vocab\.txt is a symlink out of the folder.*cp -rL",
    ),
    (
        "link out, left out",
        lambda m: (m / "notes.txt").symlink_to("/etc/passwd"),
        CodeRefused,
        r"notes\.txt is a symlink out of",
    ),
    (
        "link to nothing",
        lambda m: (m / "vocab.txt").symlink_to("gone"),
        PackError,
        r"vocab\.txt is a symlink to nothing",
    ),
    (
        "architecture",
        lambda m: write(m, {"config.json": {"architectures": ["LlamaForCasualLM"]}}),
        UnknownModel,
        "'LlamaForCasualLM', which the engine .vLLM. does not know; the nearest it knows: LlamaForCausalLM",
    ),
    (
        "unlike any",
        lambda m: write(m, {"config.json": {"architectures": ["%%%"]}}),
        UnknownModel,
        "does not know. Is the name right",
    ),
    (
        "overlap",
        lambda m: write(m, {WEIGHTS: lying(end=6)}),
        HeaderError,
        r"model-00001-of-00002\.safetensors: tensor 'b' overlaps",
    ),
    (
        "hole",
        lambda m: write(m, {WEIGHTS: lying(end=2)}),
        HeaderError,
        r"model-00001-of-00002\.safetensors: tensor 'b' leaves a hole of 2 bytes",
    ),
    (
        "past the end",
        lambda m: write(m, {WEIGHTS: lying(data=7)}),
        HeaderError,
        r"model-00001-of-00002\.safetensors: .*cut short",
    ),
    (
        "unknown dtype",
        lambda m: write(m, {WEIGHTS: lying(dtype="BF17")}),
        HeaderError,
        r"model-00001-of-00002\.safetensors: .*unknown dtype 'BF17'",
    ),
    (
        "header of 100 MB",
        lambda m: write(m, {WEIGHTS: (100_000_001).to_bytes(8, "little") + b"{"}),
        HeaderError,
        r"model-00001-of-00002\.safetensors: its header claims 100000001 bytes, more than",
    ),
    ("folder link", lambda m: (m / "more").symlink_to("/etc"), CodeRefused, "symlink to a folder"),
    ("no plain file", lambda m: os.mkfifo(m / "vocab.txt"), PackError, "is not a plain file"),
    ("no config", lambda m: remove(m / "config.json"), Incomplete, r"config\.json"),
    (
        "no weights",
        lambda m: remove(*m.glob("*.safetensors"), m / "model.safetensors.index.json"),
        Incomplete,
        r"no \.safetensors",
    ),
    (
        "missing shard",
        lambda m: remove(m / "model-00002-of-00002.safetensors"),
        Incomplete,
        "model-00002-of-00002.*run it again",
    ),
    (
        "missing shard, no index",
        lambda m: remove(m / "model-00001-of-00002.safetensors", m / "model.safetensors.index.json"),
        Incomplete,
        "model-00001-of-00002",
    ),
    (
        "another shard",
        lambda m: write(m, {"model-00002-of-00002.safetensors": safetensors(["x"])}),
        Incomplete,
        r"lacks 2 tensors.*layer\.2\.a",
    ),
    ("no architecture", lambda m: write(m, {"config.json": {}}), Incomplete, "architectures"),
    (
        "no JSON",
        lambda m: write(m, {"generation_config.json": b"{"}),
        PackError,
        r"generation_config\.json is not JSON",
    ),
    ("JSON bomb", lambda m: write(m, {"x.json": b"[" * 100_000}), PackError, r"x\.json is not JSON"),
    (
        "cut shard",
        lambda m: os.truncate(m / "model-00002-of-00002.safetensors", 100),
        HeaderError,
        "model-00002-of-00002.*cut short",
    ),
    ("a name", lambda m: write(m, {"a\nb.json": {}}), PackError, "rename"),
    ("our name", lambda m: write(m, {MANIFEST: {}}), PackError, "rename"),
    ("no folder", lambda m: m.rename(m.with_name("gone")), PackError, "is not a folder"),
]


@pytest.mark.parametrize(("damage", "error", "says"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_no_snapshot_is_refused_and_leaves_nothing(
    model: Path, store: Path, damage: Damage, error: type[SnapshotError], says: str
) -> None:
    damage(model)
    with pytest.raises(error, match=says):
        pack(model, store)
    assert not store.exists() or {entry.name for entry in store.iterdir()} == {".lock"}


@pytest.mark.parametrize(
    "architecture", ["LlamaForCausalLM", "Qwen3ForSequenceClassification", "BertModel", "MixtralForCausalLM"]
)
def test_what_the_engine_knows_or_makes_of_what_it_knows_is_taken(model: Path, store: Path, architecture: str) -> None:
    write(model, {"config.json": {"architectures": [architecture]}})
    assert pack(model, store).architecture == architecture


def test_the_list_of_architectures_is_of_the_engine_we_pin() -> None:
    root = Path(__file__).parents[2]
    version = re.search(r"vLLM ([\d.]+) knows", (root / "snapshots" / "architectures.txt").read_text())
    assert version is not None
    assert f'"vllm=={version[1]}"' in (root / "pyproject.toml").read_text()
    assert known() > {"LlamaForCausalLM", "Qwen3ForCausalLM", "BertModel"}


def test_links_within_the_folder_are_followed(model: Path, store: Path) -> None:
    (model / "tokenizer.model").rename(model / "blob")
    (model / "tokenizer.model").symlink_to("blob")
    folder = path_of(store, pack(model, store).digest)
    assert not (folder / "tokenizer.model").is_symlink()
    assert not (folder / "blob").exists()


def test_a_full_disk_leaves_nothing(model: Path, store: Path) -> None:
    write(model, {"vocab.txt": b"x" * 100_000})
    with no_file_larger_than(50_000), pytest.raises(StoreFull, match=r"GB free.*use another disk"):
        pack(model, store)
    assert {entry.name for entry in store.iterdir()} == {".lock"}


def test_a_model_larger_than_the_disk_is_refused_before_writing(model: Path, store: Path) -> None:
    size = 1 << 43  # 8 TB, sparse
    tensors = {
        f"layer.1.{part}": {"dtype": "U8", "shape": [size // 2], "data_offsets": [at, at + size // 2]}
        for part, at in (("a", 0), ("b", size // 2))
    }
    header = json.dumps(tensors).encode()
    shard = (
        write(model, {"model-00001-of-00002.safetensors": len(header).to_bytes(8, "little") + header})
        / "model-00001-of-00002.safetensors"
    )
    os.truncate(shard, 8 + len(header) + size)
    with pytest.raises(StoreFull, match="needs 8796"):
        pack(model, store)


def overwrite(file: Path, content: bytes) -> None:
    """Change a file in place and set its mtime back, as somebody who hides it would."""
    before = file.stat()
    file.chmod(0o644)
    file.write_bytes(content)
    file.chmod(0o444)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    overwrite(file, bytes(content))


def replace_by_link(file: Path) -> None:
    file.parent.chmod(0o755)
    file.rename(file.with_suffix(".moved"))
    file.symlink_to(file.with_suffix(".moved"))


def add(file: Path) -> None:
    file.parent.chmod(0o755)
    file.write_bytes(b"")


TAMPERED: list[tuple[str, Damage, str]] = [
    ("flipped bit", lambda f: flip(f / WEIGHTS), f"{WEIGHTS} does not have the content"),
    ("cut", lambda f: overwrite(f / WEIGHTS, b"x"), f"{WEIGHTS} has 1 bytes"),
    ("config", lambda f: flip(f / "1_Pooling/config.json"), "1_Pooling/config.json"),
    ("manifest", lambda f: flip(f / MANIFEST), "manifest.json"),
    (
        "other manifest",
        lambda f: overwrite(f / MANIFEST, (f / MANIFEST).read_bytes().replace(b"Llama", b"Other")),
        "not the manifest of",
    ),
    ("spelling", lambda f: overwrite(f / MANIFEST, (f / MANIFEST).read_bytes() + b" "), "not the manifest of"),
    ("added", lambda f: add(f / "1_Pooling" / "x.py"), r"x\.py does not belong"),
    ("removed", lambda f: remove(f / "tokenizer.model"), r"tokenizer\.model is missing"),
    ("link", lambda f: replace_by_link(f / WEIGHTS), f"{WEIGHTS} is neither file nor folder"),
]


@pytest.mark.parametrize(("damage", "says"), [case[1:] for case in TAMPERED], ids=[case[0] for case in TAMPERED])
def test_tampering_is_refused_by_name_also_after_a_first_stage(
    model: Path, store: Path, tmp_path: Path, damage: Damage, says: str
) -> None:
    digest = pack(model, store).digest
    folder = stage(store, digest, tmp_path / "node")
    damage(folder)
    for _ in range(2):
        with pytest.raises(TamperedError, match=says):
            stage(store, digest, tmp_path / "node")
    with pytest.raises(TamperedError, match=says):
        verify(folder)


def test_staging_again_reads_nothing(model: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = pack(model, store).digest
    verified: list[Path] = []
    monkeypatch.setattr(staging, "verify", verified.append)
    assert [stage(store, digest, tmp_path / "node") for _ in range(3)] == [path_of(store, digest)] * 3
    assert verified == [path_of(store, digest)]
    (tmp_path / "node" / f"{folder_name(digest)}.stamp").write_bytes(b"[")  # damaged: hashed again
    stage(store, digest, tmp_path / "node")
    os.utime(path_of(store, digest) / WEIGHTS)  # ctime moves
    stage(store, digest, tmp_path / "node")
    assert len(verified) == 3


def test_a_change_while_verifying_is_refused(
    model: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = pack(model, store).digest
    monkeypatch.setattr(staging, "verify", lambda folder: flip(folder / WEIGHTS))
    with pytest.raises(TamperedError, match="changed while"):
        stage(store, digest, tmp_path / "node")
    assert not list((tmp_path / "node").iterdir())


def test_a_change_within_the_clocks_grain_is_noticed(model: Path, store: Path, tmp_path: Path) -> None:
    """stage waits until the kernel's clock has moved on from the newest ctime, so that a later change has another
    one.
    """
    digest = pack(model, store).digest
    flip(path_of(store, digest) / WEIGHTS)
    flip(path_of(store, digest) / WEIGHTS)  # as it was, this very tick
    newest = (path_of(store, digest) / WEIGHTS).stat().st_ctime_ns
    stage(store, digest, tmp_path / "node")
    assert time.time_ns() - newest >= staging.CLOCK_GRAIN_NS


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:", "sha256:" + "a" * 63, "sha256:" + "A" * 64, "sha256:../" + "a" * 61, "sha256:" + "a" * 64 + "\n"],
)
def test_only_digests_name_snapshots(store: Path, tmp_path: Path, digest: str) -> None:
    with pytest.raises(NotStored, match="is not a digest"):
        stage(store, digest, tmp_path)


def test_an_unknown_digest_is_not_stored(store: Path, tmp_path: Path) -> None:
    with pytest.raises(NotStored, match="snapshot pack"):
        stage(store, "sha256:" + "a" * 64, tmp_path)


@given(
    st.text(max_size=12)
    | st.sampled_from(["../x", "/x", "a/../b", "a//b", "./a", "a/.", MANIFEST, ".hidden", "a\\b", "a\0b", ""])
)
def test_no_path_of_a_manifest_leaves_its_folder(path: str) -> None:
    try:
        SnapshotFile(path=path, size=0, sha256="0" * 64)
    except ValidationError:
        return
    assert os.path.normpath(path) == path
    assert not path.startswith(("/", ".", "~/"))
    assert "\0" not in path


def test_a_manifest_is_sorted_and_closed() -> None:
    a, b = (SnapshotFile(path=path, size=0, sha256="0" * 64) for path in "ab")
    facts: dict[str, Any] = {"architecture": "X", "dtype": "bfloat16", "tensors": 1, "tensor_bytes": 2}
    Manifest(**facts, files=(a, b))
    for wrong in ((b, a), (a, a)):
        with pytest.raises(ValidationError):
            Manifest(**facts, files=wrong)
    with pytest.raises(ValidationError):
        Manifest.model_validate({**facts, "files": (a, b), "more": 1})


def test_what_packing_would_give_is_known_without_writing(model: Path, store: Path) -> None:
    (model / WEIGHTS).unlink()
    for left in model.glob("*.safetensors*"):
        left.unlink()
    (model / "model.safetensors").write_bytes(safetensors(["x"], CHUNK + 8))  # of two chunks
    foreseen = manifest_of(model)
    assert not store.exists() or not digests(store)
    assert foreseen == pack(model, store)
