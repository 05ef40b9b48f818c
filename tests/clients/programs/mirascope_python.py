"""Mirascope."""

from mirascope import llm
from trying import CHAT, run

model = llm.Model(f"openai/{CHAT}:completions", max_tokens=8)


def call():
    """openai:completions"""
    answer = model.call("What is Pilotlight?")
    assert answer.text()
    assert answer.usage.output_tokens > 0


def stream():
    """streamed"""
    assert "".join(model.stream("What is Pilotlight?").text_stream())


def responses():
    """openai:responses"""
    assert llm.Model(f"openai/{CHAT}:responses", max_tokens=16).call("What is Pilotlight?").text()


run(call, stream, responses)
