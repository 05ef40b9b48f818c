"""`hf://org/name`: what is fetched of a repository, what is refused before its weights are, and what happens when the
hub fails.

Against a server on loopback that speaks the hub's API; huggingface_hub itself does the asking.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from snapshots import hub
from snapshots.errors import CodeRefused, HubAway, HubError, HubRefused, Incomplete, PackError, UnknownModel
from snapshots.pack import pack
from tests.hub_server import Hub, serving
from tests.model_folders import safetensors

NOBODY = "http://127.0.0.1:9"  # a port where nothing listens
LLAMA = json.dumps({"architectures": ["LlamaForCausalLM"]}).encode()
TOKENIZER = Path(__file__).parents[2] / "snapshots" / "demo" / "model"
MODEL: dict[str, bytes] = {path.name: path.read_bytes() for path in TOKENIZER.iterdir() if path.is_file()}
REST: dict[str, bytes] = {
    "README.md": b"# a model",
    "pytorch_model.bin": b"a pickle",
    "modeling.py": b"import os",
    "onnx/model.onnx": b"other",
    "original/consolidated.safetensors": b"other",
    "checkpoint-10/model.safetensors": b"other",
    "../../escape.json": b"{}",
    "/etc/passwd.json": b"{}",
}


def fetch(served: Hub, cache: Path, reference: str = "hf://org/name") -> hub.Fetched:
    return hub.fetch(hub.parse(reference), cache=cache, endpoint=served.url)


def test_only_what_a_snapshot_holds_is_fetched_and_it_is_the_snapshot_of_the_folder(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with serving(Hub("org/name", MODEL | REST)) as served:
        got = hub.fetch(
            hub.parse("hf://org/name"),
            cache=tmp_path / "cache",
            endpoint=served.url,
            progress=lambda done, total: told.append((done, total)),
        )
        assert sorted(served.downloads()) == sorted(path for path in MODEL if path != "manifest.json")
        assert served.downloads()[-1] == "model.safetensors"
    weights = len(MODEL["model.safetensors"])
    assert told[-1] == (weights, weights)
    assert (got.commit, got.licence, got.offline) == (served.commit, "apache-2.0", False)
    assert pack(got.folder, tmp_path / "a").digest == pack(TOKENIZER, tmp_path / "b").digest


def test_what_is_there_is_not_fetched_again_also_where_the_hub_is_away(tmp_path: Path) -> None:
    with serving(Hub("org/name", MODEL)) as served:
        first = fetch(served, tmp_path)
        served.asked.clear()
        assert fetch(served, tmp_path).folder == first.folder
        assert not served.downloads()
    away = hub.fetch(hub.parse("hf://org/name"), cache=tmp_path, endpoint=NOBODY)
    assert (away.folder, away.commit, away.offline) == (first.folder, first.commit, True)
    with pytest.raises(
        HubAway,
        match=r"hf://org/other is not in .* does not answer \(.*: check the network and HF_ENDPOINT, or give the folder",
    ):
        hub.fetch(hub.parse("hf://org/other"), cache=tmp_path, endpoint=NOBODY)


def test_a_download_that_breaks_goes_on_where_it_was(tmp_path: Path) -> None:
    large = MODEL | {"model.safetensors": safetensors(["x"], 12 << 20)}  # it is written in pieces of 10 MiB
    with serving(Hub("org/name", large, cut={"model.safetensors": 11 << 20})) as served:
        got = fetch(served, tmp_path)
        parts = [part for method, path, part in served.asked if method == "GET" and path.endswith("model.safetensors")]
    assert parts[0] == ""
    assert re.fullmatch(r"bytes=\d{8}-", parts[1])
    assert (got.folder / "model.safetensors").read_bytes() == large["model.safetensors"]


@pytest.mark.parametrize(
    ("files", "error", "said"),
    [
        ({"config.json": LLAMA, "pytorch_model.bin": b"p"}, Incomplete, r"pickles, which run code.*refs/pr/N"),
        ({"README.md": b"x", "model.Q4_K_M.gguf": b"GGUF"}, Incomplete, "GGUF is llama.cpp's format"),
        ({"config.json": LLAMA, "a.gguf": b"GGUF"}, Incomplete, "gguf_file"),
        (
            {"adapter_config.json": b'{"base_model_name_or_path": "org/base"}', "adapter_model.safetensors": b"x"},
            Incomplete,
            "LoRA adapter of 'org/base'.*merge_and_unload",
        ),
        (
            {"config.json": b'{"architectures": ["LlamaForCausalLLM"]}', "model.safetensors": b"x"},
            UnknownModel,
            "LlamaForCausalLM",
        ),
        (
            {
                "config.json": b'{"architectures": ["LlamaForCausalLM"], "auto_map": {"AutoModel": "m.M"}}',
                "model.safetensors": b"x",
            },
            CodeRefused,
            "auto_map",
        ),
        ({"model.safetensors": b"x"}, Incomplete, "no config.json"),
        ({"README.md": b"x"}, Incomplete, "no config.json"),
        (
            {
                "config.json": LLAMA,
                "model.safetensors.index.json": b'{"weight_map": {"x": "gone.safetensors"}}',
                "a.safetensors": b"x",
            },
            Incomplete,
            "gone.safetensors, which the hub does not have",
        ),
        (
            {"config.json": LLAMA, "model.safetensors.index.json": b'{"weight_map": 1}', "a.safetensors": b"x"},
            PackError,
            "no weight_map",
        ),
        ({"config.json": b"{", "model.safetensors": b"x"}, PackError, "config.json is not JSON"),
    ],
)
def test_what_cannot_be_served_is_refused_before_its_weights_are_fetched(
    tmp_path: Path, files: dict[str, bytes], error: type[PackError], said: str
) -> None:
    with serving(Hub("org/name", files)) as served:
        with pytest.raises(error, match=said):
            fetch(served, tmp_path)
        assert not [path for path in served.downloads() if path.endswith((".safetensors", ".gguf", ".bin"))]


@pytest.mark.parametrize(
    ("failing", "error", "said"),
    [
        (Hub("org/name", MODEL, gated=True), HubRefused, "accept its terms at .*/org/name, then set HF_TOKEN"),
        (Hub("org/name", MODEL, token="hf_secret"), HubRefused, "has no model org/name, or does not show it.*HF_TOKEN"),
        (Hub("org/else", MODEL), HubRefused, "has no model org/name"),
        (Hub("org/name", MODEL, status=403), HubRefused, "HTTP 403.*HF_TOKEN"),
        (Hub("org/name", MODEL, status=500), HubAway, "HF_ENDPOINT"),
        (Hub("org/name", MODEL, body=b"[]"), HubError, "does not answer as a hub does.*HF_ENDPOINT"),
        (Hub("org/name", MODEL, body=b"<html>"), HubError, "does not answer as a hub does.*HF_ENDPOINT"),
        (Hub("org/name", MODEL, commit="../../../tmp/x"), HubError, "which is not one: check HF_ENDPOINT"),
        (
            Hub("org/name", MODEL, instead={"config.json": LLAMA.ljust(len(MODEL["config.json"]))}),
            HubError,
            "config.json is not what the hub lists",
        ),
    ],
)
def test_a_hub_that_refuses_fails_or_lies_is_one_line_with_a_remedy(
    tmp_path: Path, failing: Hub, error: type[HubError], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(failing) as served, pytest.raises(error, match=said):
        fetch(served, tmp_path)
    assert capfd.readouterr() == ("", "")


def test_weights_that_are_not_what_the_hub_lists_are_not_packed(tmp_path: Path) -> None:
    other = MODEL["model.safetensors"][:-1] + b"\x77"
    with serving(Hub("org/name", MODEL, instead={"model.safetensors": other})) as served:
        got = fetch(served, tmp_path / "cache")
    with pytest.raises(PackError, match=r"model\.safetensors"):
        pack(got.folder, tmp_path / "store")


def test_a_token_opens_a_private_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serving(Hub("org/name", MODEL, token="hf_secret")) as served:
        assert fetch(served, tmp_path).commit == served.commit


def test_a_revision_is_a_branch_a_tag_or_a_commit(tmp_path: Path) -> None:
    with serving(Hub("org/name", MODEL)) as served:
        assert fetch(served, tmp_path, f"hf://org/name@{served.commit}").commit == served.commit
        with pytest.raises(HubRefused, match=r"no revision 'v9'"):
            fetch(served, tmp_path, "hf://org/name@v9")


def test_a_cache_that_cannot_be_written_to_is_replaced_by_ours(tmp_path: Path) -> None:
    for useless in ("~/.cache/nobody", "/proc/nothing"):
        assert hub.cache_folder(tmp_path, shared=useless) == tmp_path / "hub"
    assert hub.cache_folder(tmp_path, shared=str(tmp_path / "shared")) == tmp_path / "shared"


def test_the_command_line_packs_a_model_of_a_mirror_and_keeps_its_commit(tmp_path: Path) -> None:
    here = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}

    def pilotlight(*words: str, **environ: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pilotlight.cli.main", "snapshot", *words, "--state", str(tmp_path / "state")],
            env=here | {"HF_HOME": str(tmp_path / "home"), **environ},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    with serving(Hub("org/name", MODEL | REST)) as served:
        digest = pilotlight("pack", "hf://org/name@main", HF_ENDPOINT=served.url)
    assert pilotlight("pack", "hf://org/name", HF_ENDPOINT=served.url, HF_HUB_OFFLINE="1") == digest
    first = json.loads(pilotlight("show", digest, "--json"))["lineage"][0]
    assert (first["origin"], first["commit"], first["licence"]) == ("hf://org/name", served.commit, "apache-2.0")
    assert any("modeling.py" in line for line in first["left_out"])
