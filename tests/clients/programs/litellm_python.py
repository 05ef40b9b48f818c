"""LiteLLM's SDK."""

import litellm
from trying import CHAT, EMBED, EMBED_KEY, EMBED_URL, KEY, LONG, SAY, URL, raises, run

at = {"model": f"openai/{CHAT}", "api_base": URL, "api_key": KEY}


def completion():
    """completion"""
    answer = litellm.completion(messages=SAY, max_tokens=8, **at)
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens > 0


def stream():
    """stream"""
    assert list(litellm.completion(messages=SAY, max_tokens=8, stream=True, **at))


def hosted():
    """hosted_vllm/"""
    assert litellm.completion(
        model=f"hosted_vllm/{CHAT}", api_base=URL, api_key=KEY, messages=SAY, max_tokens=8
    ).choices


def text():
    """text_completion"""
    assert litellm.text_completion(
        model=f"text-completion-openai/{CHAT}", api_base=URL, api_key=KEY, prompt="Pilotlight is", max_tokens=4
    ).choices


def responses():
    """responses"""
    assert litellm.responses(input="Hi", max_output_tokens=16, store=False, **at).output


def embeddings():
    """embedding"""
    assert (
        len(litellm.embedding(model=f"openai/{EMBED}", api_base=EMBED_URL, api_key=EMBED_KEY, input=["a", "b"]).data)
        == 2
    )


def errors():
    """ContextWindowExceededError, AuthenticationError"""
    raises(litellm.ContextWindowExceededError, lambda: litellm.completion(messages=LONG, **at))
    raises(litellm.AuthenticationError, lambda: litellm.completion(messages=SAY, **{**at, "api_key": "pl_wrong"}))


async def awaited():
    """acompletion"""
    assert (await litellm.acompletion(messages=SAY, max_tokens=8, **at)).choices


run(completion, stream, hosted, text, responses, embeddings, errors, awaited)
