"""DSPy."""

import dspy
from trying import CHAT, EMBED, EMBED_KEY, EMBED_URL, KEY, URL, run

at = {"api_base": URL, "api_key": KEY, "max_tokens": 16, "cache": False}


def chat():
    """LM, n=3"""
    assert len(dspy.LM(f"openai/{CHAT}", **at)("What is Pilotlight?", n=3)) == 3


def text():
    """text model"""
    assert dspy.LM(f"openai/{CHAT}", model_type="text", **at)("Pilotlight is")


def responses():
    """model_type=responses"""
    assert dspy.LM(f"openai/{CHAT}", model_type="responses", **at)("What is Pilotlight?")


def embedder():
    """Embedder"""
    assert len(dspy.Embedder(f"openai/{EMBED}", api_base=EMBED_URL, api_key=EMBED_KEY, caching=False)(["a", "b"])) == 2


run(chat, text, responses, embedder)
