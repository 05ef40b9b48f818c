"""LlamaIndex with OpenAILike."""

import os

from llama_index.core.llms import ChatMessage
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from trying import CHAT, EMBED, EMBED_KEY, EMBED_URL, KEY, URL, run

llm = OpenAILike(model=CHAT, api_base=URL, api_key=KEY, is_chat_model=True, context_window=1024, max_tokens=16)
said = [ChatMessage(role="user", content="What is Pilotlight?")]


def chat():
    """chat"""
    assert llm.chat(said).message.content


def stream():
    """stream_chat"""
    assert [part.delta for part in llm.stream_chat(said)]


def complete():
    """complete, stream_complete"""
    plain = OpenAILike(model=CHAT, api_base=URL, api_key=KEY, is_chat_model=False, context_window=1024, max_tokens=4)
    assert plain.complete("Pilotlight is").text
    assert list(plain.stream_complete("Pilotlight is"))


def embeddings():
    """embeddings"""
    found = OpenAILikeEmbedding(model_name=EMBED, api_base=EMBED_URL, api_key=EMBED_KEY)
    assert len(found.get_text_embedding_batch(["a", "b"])) == 2


assert os.environ["SSL_CERT_FILE"]
run(chat, stream, complete, embeddings)
