"""Mozilla's any-llm."""

from any_llm import completion, embedding, responses
from trying import CHAT, EMBED, EMBED_KEY, EMBED_URL, KEY, SAY, URL, run

at = {"model": CHAT, "api_base": URL, "api_key": KEY}


def chat():
    """openai, vllm"""
    for provider in ("openai", "vllm"):
        assert completion(provider=provider, messages=SAY, max_tokens=8, **at).choices[0].message.content


def stream():
    """streamed"""
    assert list(completion(provider="openai", messages=SAY, max_tokens=8, stream=True, **at))


def respond():
    """responses"""
    assert responses(provider="openai", input_data="Hi", max_output_tokens=16, **at).output_text


def embed():
    """embedding"""
    assert len(embedding(EMBED, ["a", "b"], provider="openai", api_base=EMBED_URL, api_key=EMBED_KEY).data) == 2


run(chat, stream, respond, embed)
