"""AG2."""

from ag2 import Agent
from ag2.config import OpenAIConfig, OpenAIResponsesConfig
from trying import WIDE, WIDE_KEY, WIDE_URL, run

at = {"model": WIDE, "base_url": WIDE_URL, "api_key": WIDE_KEY}


def weather(city: str) -> str:
    """The weather of a city."""
    return f"it rains in {city}"


async def ask():
    """OpenAIConfig"""
    answer = await Agent("one", "Be short.", config=OpenAIConfig(**at, max_completion_tokens=16)).ask(
        "What is Pilotlight?"
    )
    assert answer.body


async def stream():
    """streaming, with a tool"""
    answer = await Agent(
        "one", config=OpenAIConfig(**at, max_completion_tokens=16, streaming=True), tools=[weather]
    ).ask("Hi")
    assert answer.body


async def responses():
    """OpenAIResponsesConfig"""
    assert (await Agent("one", config=OpenAIResponsesConfig(**at, max_output_tokens=16)).ask("Hi")).body


run(ask, stream, responses)
