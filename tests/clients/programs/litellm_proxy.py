"""LiteLLM's proxy in front of us: OpenAI's and Anthropic's clients ask it, and it asks us."""

import json
from contextlib import ExitStack
from uuid import uuid4

import anthropic
import httpx
import openai
from trying import BIN, CHAT, EMBED, EMBED_KEY, EMBED_URL, FOLDER, LONG, SAY, free_port, raises, run, serving

NAMES = {
    "demo": (f"openai/{CHAT}", "OPENAI"),
    "hosted": (f"hosted_vllm/{CHAT}", "OPENAI"),
    "text": (f"text-completion-openai/{CHAT}", "OPENAI"),
    "embedder": (f"openai/{EMBED}", "EMBED"),
}
MASTER = f"sk-{uuid4().hex}"  # the proxy's own key
TOLD = {
    "EMBED_BASE_URL": EMBED_URL,
    "EMBED_API_KEY": EMBED_KEY,
    "LITELLM_MASTER_KEY": MASTER,
}  # those of the other endpoint are there


def params(model, ours):
    return {"model": model, "api_base": f"os.environ/{ours}_BASE_URL", "api_key": f"os.environ/{ours}_API_KEY"}


models = [{"model_name": name, "litellm_params": params(*at)} for name, at in NAMES.items()]
(FOLDER / "config.yaml").write_text(json.dumps({"model_list": models, "litellm_settings": {"num_retries": 0}}))
stack, port = ExitStack(), free_port()
client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}", api_key=MASTER, max_retries=0)


def started():
    """models"""
    stack.enter_context(
        serving(
            BIN / "litellm",
            "--config",
            FOLDER / "config.yaml",
            "--host",
            "127.0.0.1",
            "--port",
            port,
            port=port,
            **TOLD,
        )
    )
    assert {model.id for model in client.models.list()} == set(NAMES)


def chat():
    """chat"""
    assert client.chat.completions.create(model="demo", messages=SAY, max_tokens=8).usage.completion_tokens > 0


def stream():
    """stream with usage"""
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    for name in ("demo", "hosted"):
        chunks = list(client.chat.completions.create(model=name, messages=SAY, max_tokens=8, **asked))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert chunks[-1].usage.completion_tokens > 0


def completions():
    """completions"""
    assert client.completions.create(model="text", prompt="Pilotlight is", max_tokens=4).choices


def embeddings():
    """embeddings"""
    assert len(client.embeddings.create(model="embedder", input=["a", "b"]).data) == 2


def responses():
    """Responses API, streamed too"""
    assert client.responses.create(model="demo", input="Hi", max_output_tokens=16).output_text
    events = list(client.responses.create(model="demo", input="Hi", max_output_tokens=16, stream=True))
    assert events[-1].type in ("response.completed", "response.incomplete"), events[-1].type


def messages():
    """/v1/messages, streamed too"""
    other = anthropic.Anthropic(base_url=f"http://127.0.0.1:{port}", api_key=MASTER, max_retries=0)
    for name in ("demo", "hosted"):
        assert other.messages.create(model=name, max_tokens=16, messages=SAY).content[0].text
        with other.messages.stream(model=name, max_tokens=16, messages=SAY) as answer:
            assert answer.get_final_text()


def errors():
    """too long a prompt, and chat goes on"""
    raises(openai.BadRequestError, lambda: client.chat.completions.create(model="demo", messages=LONG))
    chat()


def health():
    """/health"""
    told = httpx.get(
        f"http://127.0.0.1:{port}/health", headers={"authorization": f"Bearer {MASTER}"}, timeout=60
    ).json()
    well = {each["model"] for each in told["healthy_endpoints"]}
    assert f"openai/{CHAT}" in well, told


with stack:
    run(started, chat, stream, completions, embeddings, responses, messages, errors, health)
