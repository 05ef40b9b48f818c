"""Strands Agents."""

from strands import Agent, tool
from strands.models.openai import OpenAIModel
from trying import WIDE, WIDE_KEY, WIDE_URL, run

model = OpenAIModel(client_args={"base_url": WIDE_URL, "api_key": WIDE_KEY}, model_id=WIDE, params={"max_tokens": 400})


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"it rains in {city}"


def agent():
    """Agent with a tool"""
    answer = Agent(model=model, tools=[weather], callback_handler=None)("What is Pilotlight?")
    assert str(answer)
    assert answer.metrics.accumulated_usage["outputTokens"] > 0


run(agent)
