"""OpenAI's Agents SDK, without its tracing."""

from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, set_tracing_disabled
from openai import AsyncOpenAI
from trying import CHAT, run

set_tracing_disabled(True)
few = ModelSettings(max_tokens=300, store=False)  # enough for a whole answer: one that is cut is an error here


def chat_agent():
    return Agent(name="a", model=OpenAIChatCompletionsModel(CHAT, AsyncOpenAI()), model_settings=few)


async def chat():
    """OpenAIChatCompletionsModel"""
    assert (await Runner.run(chat_agent(), "What is Pilotlight?")).final_output


async def stream():
    """run_streamed"""
    running = Runner.run_streamed(chat_agent(), "What is Pilotlight?")
    assert [event async for event in running.stream_events()]
    assert running.final_output


async def default():
    """default model (Responses API)"""
    assert (await Runner.run(Agent(name="a", model=CHAT, model_settings=few), "What is Pilotlight?")).final_output


run(chat, stream, default)
