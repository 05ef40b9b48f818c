"""Folders as people have them: what an engine never reads is left out and said, what cannot work is refused before it
is copied.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshots.errors import CodeRefused, Incomplete, PackError, SnapshotError, UnknownModel
from snapshots.known import known
from snapshots.model_folder import look
from snapshots.other_formats import refuse_other_formats
from snapshots.pack import pack
from snapshots.selection import may_be_in_a_snapshot, select
from tests.model_folders import LLAMA, PLAIN, TOKENIZER, Damage, Files, safetensors, write

INDEX = "model.safetensors.index.json"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "model", PLAIN)


def told_by(model: Path, store: Path) -> tuple[str, str]:
    """The digest, and what is said."""
    said: list[str] = []
    return pack(model, store, tell=said.append).digest, "\n".join(said)


LEFT_OUT: list[tuple[str, Files, str]] = [
    ("a trainer's", {"checkpoint-100/model.safetensors": safetensors(["a"]), "training_args.bin": b"\x80"}, r"checkpoint-100/.*\n.*training_args\.bin"),
    ("its state", {"trainer_state.json": {}, "optimizer.pt": b"", "rng_state.pth": b"", "all_results.json": {}}, r"trainer_state\.json"),
    ("another's", {"global_step200/mp_rank_00_model_states.pt": b"", "latest": b"global_step200"}, "global_step200/"),
    ("pickles", {"pytorch_model.bin": b"\x80", "pytorch_model.bin.index.json": {"weight_map": {}}}, r"pickles.*pytorch_model\.bin"),
    ("other formats", {"tf_model.h5": b"", "flax_model.msgpack": b"", "rust_model.ot": b"", "model.Q4_K_M.gguf": b"GGUF"}, r"tf_model\.h5"),
    ("onnx", {"onnx/model.onnx": b"", "onnx/config.json": {}, "openvino/openvino_model.xml": b""}, r"onnx/ \(2 files\)"),
    ("Meta's", {"original/consolidated.00.pth": b"", "original/params.json": {}, "original/tokenizer.model": b""}, r"original/ \(3 files\)"),
    ("Mistral's", {"consolidated.safetensors": safetensors(["x"]), "params.json": {}}, r"second copy.*consolidated\.safetensors"),
    ("Mistral's index", {"consolidated.safetensors.index.json": {"weight_map": {}}}, r"consolidated\.safetensors\.index\.json"),
    ("a variant", {"model.fp16.safetensors": safetensors(["a", "b"])}, r"second copy.*model\.fp16\.safetensors"),
    ("an adapter", {"adapter_model.safetensors": safetensors(["lora"])}, r"adapter_model\.safetensors"),
    ("old shards", {"model-00001-of-00003.safetensors": safetensors(["old"])}, "model-00001-of-00003"),
    ("code", {"modeling_x.py": b"import os", "train.sh": b"", "demo.ipynb": b"", "x.so": b""}, r"own code.*modeling_x\.py"),
    ("code below", {"custom_generate/generate.py": b"", "src/a.PY": b""}, "custom_generate/"),
    ("numpy", {"a.npy": b"", "b.npz": b""}, r"pickles.*a\.npy"),
    ("text", {"README.md": b"", "LICENSE": b"", "image.png": b"", "tokenizer.tiktoken": b""}, r"README\.md"),
    ("a folder twice", {"final/model.safetensors": safetensors(["a"]), "final/config.json": LLAMA}, r"final/ \(2 files\)"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "says"), [case[1:] for case in LEFT_OUT], ids=[case[0] for case in LEFT_OUT])
def test_what_no_engine_reads_is_left_out_and_said_and_the_digest_is_the_same(
    model: Path, tmp_path: Path, more: Files, says: str
) -> None:
    without, _ = told_by(model, tmp_path / "one")
    write(model, more)
    digest, said = told_by(model, tmp_path / "two")
    assert digest == without
    assert re.search(says, said), said


def sharded(model: Path) -> Path:
    (model / "model.safetensors").unlink()
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    files: Files = {shard: safetensors([tensor]) for tensor, shard in weight_map.items()}
    return write(model, files | {INDEX: {"weight_map": weight_map}})


@pytest.mark.parametrize(
    "more",
    [
        "model.safetensors",
        "consolidated.safetensors",
        "model-00001-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "x.safetensors",
    ],
)
def test_the_index_decides(model: Path, tmp_path: Path, more: str) -> None:
    without, _ = told_by(sharded(model), tmp_path / "one")
    digest, said = told_by(write(model, {more: safetensors(["a", "z"])}), tmp_path / "two")
    assert digest == without
    assert more in said


def test_the_index_may_name_any_file(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").rename(model / "first.safetensors")
    write(
        model,
        {
            "more.safetensors": safetensors(["c"]),
            INDEX: {"weight_map": {"a": "first.safetensors", "c": "more.safetensors"}},
        },
    )
    assert {file.path for file in pack(model, tmp_path / "store").files} >= {
        "first.safetensors",
        "more.safetensors",
        INDEX,
    }


@pytest.mark.parametrize("index", [True, False])
def test_a_tensor_in_two_files_is_the_same_in_both_or_refused(model: Path, tmp_path: Path, index: bool) -> None:
    sharded(model)
    both = safetensors(["a", "b"])
    write(model, {"model-00002-of-00002.safetensors": both})
    if not index:
        (model / INDEX).unlink()
    pack(model, tmp_path / "store")
    write(model, {"model-00002-of-00002.safetensors": both[:-16] + b"otherssh" + both[-8:]})
    with pytest.raises(PackError, match=r"00001.*and.*00002.*both hold the tensor 'a'.*remove the file"):
        pack(model, tmp_path / "store")


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """A revision in a hub cache: links into ../../blobs, named by content."""
    repository = tmp_path / "hub cache" / "models--org--name"
    files = write(tmp_path / "files", PLAIN | {"1_Pooling/config.json": {"pooling_mode_cls_token": True}})
    revision = repository / "snapshots" / ("a" * 40)
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    for file in sorted(files.rglob("*.*")):
        content = file.read_bytes()
        sha1 = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        blob = hashlib.sha256(content).hexdigest() if file.suffix == ".safetensors" else sha1
        (repository / "blobs" / blob).write_bytes(content)
        link = revision / file.relative_to(files)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(*[".."] * (len(file.relative_to(files).parts) + 1), "blobs", blob))
    return revision


def test_a_revision_in_a_hub_cache_is_packed_as_its_files_are(cached: Path, tmp_path: Path) -> None:
    plain = pack(tmp_path / "files", tmp_path / "one")
    assert pack(cached, tmp_path / "two") == plain
    assert pack(cached.parent.parent, tmp_path / "three") == plain, "the model's folder in the cache: its main revision"
    (tmp_path / "link").symlink_to(cached)
    assert pack(tmp_path / "link", tmp_path / "four") == plain


def test_a_cache_of_several_revisions_without_a_main_one_asks_which(cached: Path, tmp_path: Path) -> None:
    (cached.parent.parent / "refs" / "main").unlink()
    (cached.parent / "b").mkdir()
    with pytest.raises(Incomplete, match="several revisions"):
        pack(cached.parent.parent, tmp_path / "store")


def blob_of(cached: Path, name: str = "model.safetensors") -> Path:
    return (cached / name).resolve()


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (lambda c: blob_of(c).unlink(), Incomplete, r"model\.safetensors leads to a blob that is not in the cache.*run it again"),
        (lambda c: blob_of(c).write_bytes(safetensors(["a", "c"])), PackError, r"model\.safetensors is not what the hub cache says"),
        (lambda c: (c / "vocab.txt").symlink_to("/etc/passwd"), CodeRefused, r"vocab\.txt is a symlink out.*cp -rL '.*hub cache"),
        (lambda c: (c / "vocab.txt").symlink_to("../../refs/main"), CodeRefused, "symlink out"),
        (lambda c: (c / "vocab.txt").symlink_to("../../../models--other--one/blobs/" + "a" * 40), PackError, "symlink to nothing"),
    ],
)  # fmt: skip
def test_a_cache_that_is_not_whole_or_leads_elsewhere_is_refused(
    cached: Path, tmp_path: Path, damage: Damage, error: type[SnapshotError], says: str
) -> None:
    damage(cached)
    with pytest.raises(error, match=says):
        pack(cached, tmp_path / "store")


def test_another_models_blobs_are_not_this_ones(cached: Path, tmp_path: Path) -> None:
    other = cached.parents[2] / "models--other--one" / "blobs" / ("c" * 40)
    other.parent.mkdir(parents=True)
    other.write_text("{}")
    (cached / "vocab.json").symlink_to(other)
    with pytest.raises(CodeRefused, match="symlink out"):
        pack(cached, tmp_path / "store")


def without(*names: str) -> Damage:
    def remove(model: Path) -> None:
        for name in names:
            (model / name).unlink()

    return remove


def one_folder_deeper(model: Path) -> None:
    model.rename(model.with_name("x"))
    model.mkdir()
    model.with_name("x").rename(model / "my model")


def latest_checkpoint(model: Path) -> None:
    (model / "checkpoint-1").mkdir()
    (model / "latest").symlink_to("checkpoint-1")


def with_config(**more: Any) -> Damage:
    return lambda model: write(model, {"config.json": LLAMA | more})


def instead_of_tokenizer(files: Files) -> Damage:
    return lambda model: (without("tokenizer.json")(model), write(model, files))


def pieces(count: int) -> bytes:
    """A SentencePiece model of so many pieces, and a trainer's part."""
    piece = b"\x0a\x03abc\x15\0\0\0\0"
    return (b"\x0a" + bytes([len(piece)]) + piece) * count + b"\x12\x02\x18\x01"


BEYOND: dict[str, Any] = {"model": {"vocab": {"a": 0, "b": 4}}}
CANNOT_WORK: list[tuple[str, Damage, type[SnapshotError], str]] = [
    ("no tokenizer", without("tokenizer.json"), Incomplete, "holds no tokenizer"),
    ("tiktoken only", instead_of_tokenizer({"tiktoken.model": b"YQ== 0\n"}), Incomplete, "holds no tokenizer.*saved anew"),
    ("half of BPE", instead_of_tokenizer({"vocab.json": {"a": 0}}), Incomplete, "vocab.json with merges.txt"),
    ("an empty tokenizer", lambda m: write(m, {"tokenizer.json": {}}), PackError, r"tokenizer\.json holds no model"),
    ("a broken tokenizer", lambda m: write(m, {"tokenizer.json": b"{"}), PackError, r"tokenizer\.json is not JSON"),
    ("no SentencePiece", instead_of_tokenizer({"tokenizer.model": b"YQ== 0\n"}), PackError, r"tokenizer\.model is not a SentencePiece"),
    ("more tokens: vocabulary", lambda m: write(m, {"tokenizer.json": BEYOND}), Incomplete, "'b' with the number 4, but the model has 4 rows"),
    ("more tokens: added", lambda m: write(m, {"tokenizer.json": TOKENIZER | {"added_tokens": [{"id": 9, "content": "<x>"}]}}), Incomplete, "'<x>' with the number 9"),
    ("more tokens: config", lambda m: write(m, {"tokenizer_config.json": {"added_tokens_decoder": {"4": {"content": "<y>"}}}}), Incomplete, "'<y>'"),
    ("more tokens: beside", lambda m: write(m, {"added_tokens.json": {"<z>": 4}}), Incomplete, "'<z>'"),
    ("more tokens: unigram", lambda m: write(m, {"tokenizer.json": {"model": {"vocab": [["a", 0.0]] * 5}}}), Incomplete, "number 4"),
    ("more tokens: words", instead_of_tokenizer({"vocab.txt": b"a\nb\nc\nd\ne\n"}), Incomplete, "number 4"),
    ("more tokens: bytes", instead_of_tokenizer({"vocab.json": {"a": 4}, "merges.txt": b""}), Incomplete, "number 4"),
    ("more tokens: pieces", instead_of_tokenizer({"tokenizer.model": pieces(5)}), Incomplete, "number 4"),
    ("more tokens: nested", with_config(vocab_size=None, text_config={"vocab_size": 1}), Incomplete, "has 1 rows"),
    ("fewer rows than said", lambda m: (with_config(vocab_size=9)(m), write(m, {"model.safetensors": table(1)})), Incomplete, "has 1 rows"),
    ("a draft model", with_config(architectures=["EagleLlamaForCausalLM"]), UnknownModel, "only speculates for another"),
    ("rows nobody said", lambda m: (with_config(vocab_size=None)(m), write(m, {"model.safetensors": table(1)})), Incomplete, "has 1 rows"),
    ("template", lambda m: write(m, {"chat_template.jinja": b"{% for %}"}), PackError, r"chat_template\.jinja cannot be read.*line 1"),
    ("template in config", lambda m: write(m, {"tokenizer_config.json": {"chat_template": "{{ x"}}), PackError, "tokenizer_config.json cannot be read"),
    ("template of several", lambda m: write(m, {"tokenizer_config.json": {"chat_template": [{"name": "a", "template": "{{"}]}}), PackError, "number 1"),
    ("further template", lambda m: write(m, {"additional_chat_templates/rag.jinja": b"{{"}), PackError, "rag.jinja"),
    ("quantized unknown", with_config(quantization_config={"quant_method": "bitsandbytes"}), UnknownModel, "'bitsandbytes', which the engine"),
    ("quantized mistyped", with_config(quantization_config={"quant_method": "compressed_tensor"}), UnknownModel, "compressed-tensors"),
    ("own code", with_config(model_type="mymodel", auto_map={"AutoModel": "m.M"}), CodeRefused, "auto_map.*'mymodel'.*snapshots.model_code"),
    ("own tokenizer", lambda m: write(m, {"tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["t.T", None]}, "tokenizer_class": "TTokenizer"}}), CodeRefused, "'TTokenizer'"),
    ("pickled module", lambda m: write(m, {"2_Dense/pytorch_model.bin": b"", "2_Dense/config.json": {}}), CodeRefused, "2_Dense/pytorch_model.bin"),
    ("LFS weights", lambda m: write(m, {"model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid x\n"}), Incomplete, "git lfs pull"),
    ("LFS tokenizer", lambda m: write(m, {"tokenizer.json": b"version https://git-lfs.github.com/spec/v1\noid x\n"}), Incomplete, "git lfs pull"),
    ("an empty index", lambda m: write(m, {INDEX: {"weight_map": {}}}), PackError, "no weight_map"),
    ("an adapter", lambda m: (without("model.safetensors", "config.json")(m), write(m, {"adapter_config.json": {}})), Incomplete, "LoRA"),
    ("GGUF", lambda m: (without("model.safetensors")(m), write(m, {"m.gguf": b"GGUF"})), Incomplete, "GGUF"),
    ("only pickles", lambda m: (without("model.safetensors")(m), write(m, {"pytorch_model.bin": b""})), Incomplete, "pickles.*hf download"),
    ("Mistral's format", lambda m: ((m / "model.safetensors").rename(m / "consolidated.safetensors"), without("config.json")(m), write(m, {"params.json": {}})), Incomplete, "Mistral's own format"),
    ("one folder deeper", one_folder_deeper, Incomplete, "'.*my model'"),
]  # fmt: skip


def table(rows: int) -> bytes:
    header = json.dumps(
        {"model.embed_tokens.weight": {"dtype": "BF16", "shape": [rows, 2], "data_offsets": [0, rows * 4]}}
    ).encode()
    return len(header).to_bytes(8, "little") + header + bytes(rows * 4)


@pytest.mark.parametrize(
    ("damage", "error", "says"), [case[1:] for case in CANNOT_WORK], ids=[case[0] for case in CANNOT_WORK]
)
def test_what_cannot_work_is_refused_before_anything_is_copied(
    model: Path, tmp_path: Path, damage: Damage, error: type[SnapshotError], says: str
) -> None:
    damage(model)
    with pytest.raises(error, match=says):
        pack(model, tmp_path / "store")
    assert not (tmp_path / "store").exists()


WORKS: list[tuple[str, Damage]] = [
    ("SentencePiece", instead_of_tokenizer({"tokenizer.model": pieces(4)})),
    ("byte-level BPE", instead_of_tokenizer({"vocab.json": {"a": 3}, "merges.txt": b""})),
    ("words", instead_of_tokenizer({"vocab.txt": b"a\nb\n"})),
    ("tekken", instead_of_tokenizer({"tekken.json": {"config": {"default_vocab_size": 4}}})),
    ("bytes", instead_of_tokenizer({"tokenizer_config.json": {"tokenizer_class": "ByT5Tokenizer"}})),
    ("a family's marker", lambda m: write(m, {"added_tokens.json": {"<image_soft_token>": 4}})),
    ("an image's placeholder", lambda m: (write(m, {"added_tokens.json": {"<image>": 9}}), with_config(vision_config={"image_token_id": 9})(m))),
    ("code that is not needed", with_config(auto_map={"AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"})),
    ("quantized", with_config(quantization_config={"quant_method": "compressed-tensors"})),
    ("training's tag in a template", lambda m: write(m, {"chat_template.jinja": b"{% generation %}{{ x }}{% endgeneration %}{% for a in x %}{% break %}{% endfor %}"})),
    ("a link within to a folder", latest_checkpoint),
]  # fmt: skip


@pytest.mark.parametrize("change", [case[1] for case in WORKS], ids=[case[0] for case in WORKS])
def test_what_works_is_taken(model: Path, tmp_path: Path, change: Damage) -> None:
    change(model)
    pack(model, tmp_path / "store")


def test_a_generating_model_without_a_chat_template_is_taken_and_it_is_said(model: Path, tmp_path: Path) -> None:
    (model / "tokenizer_config.json").unlink()
    _, said = told_by(model, tmp_path / "store")
    assert "no chat template" in said and "--engine-arg chat-template" in said
    write(model, {"config.json": {"architectures": ["BertModel"], "model_type": "bert"}})
    _, said = told_by(model, tmp_path / "store")
    assert "chat template" not in said


def test_code_is_taken_only_where_the_machine_allows(model: Path, tmp_path: Path) -> None:
    config = LLAMA | {"model_type": "mymodel", "auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}
    write(
        model, {"config.json": config, "modeling_x.py": b"", "x.tiktoken": b"", "x.so": b"", "pytorch_model.bin": b""}
    )
    with pytest.raises(CodeRefused):
        pack(model, tmp_path / "store")
    taken = {file.path for file in pack(model, tmp_path / "store", code=True).files}
    assert {"modeling_x.py", "x.tiktoken"} <= taken
    assert not taken & {"x.so", "pytorch_model.bin"}


NAMES = st.lists(
    st.sampled_from(
        ["config.json", "modeling.py", "a/b.py", "a.bin", "x.safetensors", "model.safetensors", "1_Pooling/config.json", "1_Dense/a.py", "tokenizer.json", "A.PT", "x.so"]
    ) | st.text(max_size=20), unique=True,
)  # fmt: skip


@given(NAMES)
def test_no_name_of_code_or_a_pickle_is_ever_chosen_and_none_is_lost(names: list[str]) -> None:
    try:
        chosen = select(names, lambda path: b"{}")
    except SnapshotError:
        return
    assert all(may_be_in_a_snapshot(path) for path in chosen.taken)
    assert not any(path.lower().endswith((".py", ".bin", ".pt", ".so")) for path in chosen.taken)
    assert sorted([*chosen.taken, *(path for paths in chosen.left_out.values() for path in paths)]) == sorted(names)


def test_what_is_said_stays_short_and_is_fit_for_a_terminal(model: Path) -> None:
    write(model, {f"{'x' * 200}{number}.md": b"" for number in range(50)})
    write(model, {"a\x1b[2Jb.txt": b"", "\udcff.txt": b""})
    told = look(model).left_out
    assert max(map(len, told)) < 600
    assert all(line.isprintable() for line in told)


def test_the_lists_are_of_the_engine_we_pin() -> None:
    root = Path(__file__).parents[2]
    version = re.search(r"vLLM ([\d.]+) and", (root / "snapshots" / "known_to_engine.txt").read_text())
    assert version is not None and f'"vllm=={version[1]}"' in (root / "pyproject.toml").read_text()
    assert (
        known("model_type") > {"llama", "qwen3"}
        and known("tokenizer") > {"LlamaTokenizer"}
        and known("quantization") > {"awq", "fp8"}
    )


@pytest.mark.parametrize(
    "files",
    [
        {"adapter_config.json": b'{"base_model_name_or_path": "org/base"}', "adapter_model.safetensors": b"x"},
        {"m.Q4.gguf": b"GGUF"},
    ],
)
def test_another_kind_of_model_is_told_in_the_same_words_of_a_folder_and_of_a_hub(tmp_path: Path, files: Files) -> None:
    model = write(tmp_path / "model", files)
    with pytest.raises(Incomplete) as of_a_hub:
        refuse_other_formats(list(files), model)
    with pytest.raises(Incomplete, match=re.escape(str(of_a_hub.value))):
        look(model)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "latin-1"])
@pytest.mark.parametrize("path", [INDEX, "modules.json", "tokenizer.json", "config.json", "generation_config.json"])
def test_a_text_in_another_encoding_is_refused_by_whoever_reads_it_first(
    model: Path, tmp_path: Path, path: str, encoding: str
) -> None:
    (model / path).write_bytes('{"é": 1}'.encode(encoding))
    with pytest.raises(PackError, match=rf"{re.escape(path)} is not JSON"):
        pack(model, tmp_path / "store")
