"""GuideLLM, by its command line, with its own check of the server."""

import json

from trying import BIN, CHAT, FOLDER, KEY, MODEL_FOLDER, URL, out, run


def benchmark(kind):
    found = FOLDER / f"{kind.replace('/', '-')}.json"
    out(
        BIN / "guidellm", "run", "--backend", f"kind=openai_http,target={URL.removesuffix('/v1')},model={CHAT},api_key={KEY},request_format={kind}",
        "--tokenizer", f"kind=huggingface_auto,model={MODEL_FOLDER}", "--profile", "kind=concurrent,streams=4",
        "--constraint", "kind=max_requests,count=8", "--data", "kind=synthetic_text,prompt_tokens=24,output_tokens=8",
        "--output", f"kind=json,path={found}", "--disable-console",
    )  # fmt: skip
    told = json.loads(found.read_text())["benchmarks"][0]["metrics"]["request_totals"]
    assert told["successful"] >= 8, told
    assert not told["errored"], told


def chat():
    """chat"""
    benchmark("/v1/chat/completions")


def completions():
    """completions"""
    benchmark("/v1/completions")


run(chat, completions)
