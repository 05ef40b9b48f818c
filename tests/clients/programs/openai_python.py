"""The OpenAI client for Python, as its documentation uses it."""

import asyncio

import openai
from trying import CHAT, EMBED, EMBED_KEY, EMBED_URL, KEY, LONG, SAY, URL, YES_OR_NO, raises, run

client = openai.OpenAI()  # all by environment variables: OPENAI_BASE_URL, OPENAI_API_KEY, SSL_CERT_FILE


def chat():
    """chat"""
    answer = client.chat.completions.create(model=CHAT, messages=SAY, max_tokens=8)
    assert answer.choices[0].message.content
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


def stream():
    """stream with usage"""
    chunks = list(
        client.chat.completions.create(
            model=CHAT, messages=SAY, max_tokens=8, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert chunks[-1].usage.completion_tokens > 0


def helper():
    """stream helper"""
    with client.chat.completions.stream(model=CHAT, messages=SAY, max_tokens=8) as events:
        assert any(event.type == "content.delta" for event in events)


def choices():
    """n=2, logprobs"""
    answer = client.chat.completions.create(model=CHAT, messages=SAY, max_tokens=4, n=2, logprobs=True, top_logprobs=2)
    assert len(answer.choices) == 2
    assert answer.choices[0].logprobs.content


def completions():
    """completions, 20 prompts at once"""
    answer = client.completions.create(model=CHAT, prompt=["Pilotlight is"] * 20, max_tokens=2)
    assert len(answer.choices) == 20


def schema():
    """json_schema"""
    form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": YES_OR_NO}}
    answer = client.chat.completions.create(model=CHAT, messages=SAY, max_tokens=30, response_format=form)
    assert "yes" in answer.choices[0].message.content


def embeddings():
    """embeddings"""
    embedder = openai.OpenAI(base_url=EMBED_URL, api_key=EMBED_KEY)
    one = embedder.embeddings.create(model=EMBED, input="a").data[0].embedding
    many = embedder.embeddings.create(model=EMBED, input=["a", "b"]).data
    floats = embedder.embeddings.create(model=EMBED, input="a", encoding_format="float").data[0].embedding
    assert len(many) == 2
    assert len(one) == len(floats) > 0


def models():
    """models"""
    assert [model.id for model in client.models.list()] == [CHAT]
    assert client.models.retrieve(CHAT).id == CHAT


def responses():
    """Responses API"""
    answer = client.responses.create(model=CHAT, input="What is Pilotlight?", max_output_tokens=16, store=False)
    assert answer.output_text
    assert answer.usage.output_tokens > 0


def responses_stream():
    """Responses API, streamed"""
    events = list(client.responses.create(model=CHAT, input="Hi", max_output_tokens=16, store=False, stream=True))
    assert events[-1].type in ("response.completed", "response.incomplete"), events[-1].type


def wrong_key():
    """401"""
    raises(
        openai.AuthenticationError,
        lambda: openai.OpenAI(api_key="pl_wrong").chat.completions.create(model=CHAT, messages=SAY),
    )


def unknown_model():
    """404"""
    raises(
        openai.NotFoundError, lambda: client.chat.completions.create(model="none", messages=SAY), code="model_not_found"
    )


def too_long():
    """too long a prompt"""
    raises(
        openai.BadRequestError,
        lambda: client.chat.completions.create(model=CHAT, messages=LONG),
        code="context_length_exceeded",
        type="invalid_request_error",
    )


async def many():
    """eight at once, async"""
    async with openai.AsyncOpenAI() as several:
        answers = await asyncio.gather(
            *(several.chat.completions.create(model=CHAT, messages=SAY, max_tokens=4) for _ in range(8))
        )
    assert all(answer.choices for answer in answers)


def leave():
    """leaving a stream"""
    with client.chat.completions.create(model=CHAT, messages=SAY, max_tokens=500, stream=True) as answer:
        next(iter(answer))


assert URL and KEY
if hasattr(client, "responses"):
    newer = (responses, responses_stream)
    run(chat, stream, *([helper] if hasattr(client.chat.completions, "stream") else []), choices, completions, schema, embeddings, models,
        *newer, wrong_key, unknown_model, too_long, many, leave)  # fmt: skip
else:
    run(chat, stream, choices, completions, schema, embeddings, models, wrong_key, unknown_model, too_long, many, leave)
