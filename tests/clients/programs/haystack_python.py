"""Haystack."""

from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.components.generators.chat.openai_responses import OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.utils import Secret
from trying import CHAT, EMBED, EMBED_KEY, EMBED_URL, URL, run

said = [ChatMessage.from_user("What is Pilotlight?")]


def chat():
    """OpenAIChatGenerator"""
    assert (
        OpenAIChatGenerator(model=CHAT, api_base_url=URL, generation_kwargs={"max_tokens": 16})
        .run(said)["replies"][0]
        .text
    )


def stream():
    """streamed"""
    parts = []
    OpenAIChatGenerator(
        model=CHAT, api_base_url=URL, streaming_callback=parts.append, generation_kwargs={"max_tokens": 16}
    ).run(said)
    assert parts


def embedders():
    """embedders"""
    at = {"model": EMBED, "api_base_url": EMBED_URL, "api_key": Secret.from_token(EMBED_KEY)}
    assert OpenAITextEmbedder(**at).run("a")["embedding"]
    assert all(
        each.embedding
        for each in OpenAIDocumentEmbedder(progress_bar=False, **at).run([Document(content=str(n)) for n in range(40)])[
            "documents"
        ]
    )


def responses():
    """OpenAIResponsesChatGenerator"""
    kwargs = {"max_output_tokens": 16, "store": False}
    assert OpenAIResponsesChatGenerator(model=CHAT, api_base_url=URL, generation_kwargs=kwargs).run(said)["replies"]


run(chat, stream, embedders, responses)
