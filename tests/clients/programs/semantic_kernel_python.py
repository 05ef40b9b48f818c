"""Semantic Kernel."""

import openai
from semantic_kernel.connectors.ai.open_ai import (
    OpenAIChatCompletion,
    OpenAIChatPromptExecutionSettings,
    OpenAITextEmbedding,
)
from semantic_kernel.contents import ChatHistory
from trying import CHAT, EMBED, EMBED_KEY, EMBED_URL, run

settings = OpenAIChatPromptExecutionSettings(max_tokens=8)


def asked():
    history = ChatHistory(system_message="Be short.")
    history.add_user_message("What is Pilotlight?")
    return history


async def chat():
    """OpenAIChatCompletion"""
    answer = await OpenAIChatCompletion(ai_model_id=CHAT).get_chat_message_content(asked(), settings)
    assert answer.content
    assert answer.metadata["usage"].completion_tokens > 0


async def stream():
    """streamed"""
    parts = [
        str(part)
        async for part in OpenAIChatCompletion(ai_model_id=CHAT).get_streaming_chat_message_content(asked(), settings)
    ]
    assert "".join(parts)


async def embeddings():
    """OpenAITextEmbedding"""
    client = openai.AsyncOpenAI(base_url=EMBED_URL, api_key=EMBED_KEY)
    assert len(await OpenAITextEmbedding(ai_model_id=EMBED, async_client=client).generate_embeddings(["a", "b"])) == 2


run(chat, stream, embeddings)
