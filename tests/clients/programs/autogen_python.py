"""AutoGen."""

from autogen_agentchat.agents import AssistantAgent
from autogen_core.models import UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient
from trying import WIDE, WIDE_KEY, WIDE_URL, run

ABLE = {"vision": False, "function_calling": True, "json_output": True, "family": "unknown", "structured_output": True}


def client():
    return OpenAIChatCompletionClient(model=WIDE, base_url=WIDE_URL, api_key=WIDE_KEY, model_info=ABLE, max_tokens=24)


def weather(city: str) -> str:
    """The weather of a city."""
    return f"it rains in {city}"


async def create():
    """create, create_stream"""
    asked = [UserMessage(content="What is Pilotlight?", source="user")]
    answer = await client().create(asked)
    assert answer.content
    assert answer.usage.completion_tokens > 0
    parts = [
        part
        async for part in client().create_stream(asked, extra_create_args={"stream_options": {"include_usage": True}})
    ]
    assert parts[-1].usage.completion_tokens > 0


async def agent():
    """AssistantAgent with a tool"""
    answer = await AssistantAgent("one", model_client=client(), tools=[weather]).run(task="What is Pilotlight?")
    assert answer.messages[-1].content


async def agent_streamed():
    """model_client_stream"""
    answer = await AssistantAgent("one", model_client=client(), model_client_stream=True).run(
        task="What is Pilotlight?"
    )
    assert answer.messages[-1].content


run(create, agent, agent_streamed)
