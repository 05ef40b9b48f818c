"""NVIDIA's AIPerf, by its command line."""

import json

from trying import BIN, CHAT, EMBED, EMBED_KEY, EMBED_URL, FOLDER, KEY, MODEL_FOLDER, URL, out, run

TOKENIZER, COMMIT = "ours/demo", "a" * 40  # it takes no folder: this is a hub's cache that has it
hub = FOLDER / "hub" / "models--ours--demo"
for inner in ("refs", "snapshots"):
    (hub / inner).mkdir(parents=True)
(hub / "refs" / "main").write_text(COMMIT)
(hub / "snapshots" / COMMIT).symlink_to(MODEL_FOLDER)


def profile(kind, *options, url=URL, key=KEY, model=CHAT):
    place = FOLDER / kind
    out(
        BIN / "aiperf", "profile", "--model", model, "--url", url, "--api-key", key, "--endpoint-type", kind, "--tokenizer", TOKENIZER,
        "--request-count", "6", "--concurrency", "2", "--isl", "16", "--osl", "8", "--ui", "none", "--output-artifact-dir", place, *options, HF_HUB_CACHE=hub.parent,
    )  # fmt: skip
    (found,) = place.rglob("profile_export_aiperf.json")
    told = json.loads(found.read_text())
    assert told["request_count"]["avg"] == 6, told
    assert not told.get("error_request_count"), told


def chat():
    """chat, streamed"""
    profile("chat", "--streaming", "--use-server-token-count")


def completions():
    """completions"""
    profile("completions")


def responses():
    """responses"""
    profile("responses", "--streaming")


def embeddings():
    """embeddings"""
    profile("embeddings", url=EMBED_URL, key=EMBED_KEY, model=EMBED)


run(chat, completions, responses, embeddings)
