"""Agno."""

from agno.agent import Agent
from agno.models.openai import OpenAIChat, OpenAIResponses
from agno.models.openai.like import OpenAILike
from trying import WIDE, WIDE_KEY, WIDE_URL, run

at = {"id": WIDE, "base_url": WIDE_URL, "api_key": WIDE_KEY}


def weather(city: str) -> str:
    """The weather of a city."""
    return f"it rains in {city}"


def chat():
    """OpenAIChat, OpenAILike"""
    for kind in (OpenAIChat, OpenAILike):
        answer = Agent(model=kind(**at, max_tokens=24), tools=[weather], telemetry=False).run("What is Pilotlight?")
        assert answer.content
        assert answer.metrics.output_tokens > 0


def stream():
    """streamed"""
    events = list(Agent(model=OpenAIChat(**at, max_tokens=24), telemetry=False).run("What is Pilotlight?", stream=True))
    assert any(event.content for event in events)


def responses():
    """OpenAIResponses"""
    assert (
        Agent(model=OpenAIResponses(**at, max_output_tokens=24, store=False), telemetry=False)
        .run("What is Pilotlight?")
        .content
    )


run(chat, stream, responses)
