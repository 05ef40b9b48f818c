"""Pydantic AI."""

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.settings import ModelSettings
from trying import CHAT, run

few = ModelSettings(max_tokens=40)


class Answer(BaseModel):
    yes: bool


def text():
    """OpenAIChatModel"""
    answer = Agent(OpenAIChatModel(CHAT), model_settings=few).run_sync("What is Pilotlight?")
    assert answer.output
    assert answer.usage.output_tokens > 0


def structured():
    """NativeOutput"""
    assert isinstance(
        Agent(OpenAIChatModel(CHAT), output_type=NativeOutput(Answer), model_settings=few).run_sync("Is it?").output,
        Answer,
    )


def default():
    """openai: (Responses API)"""
    assert Agent(f"openai:{CHAT}", model_settings=few).run_sync("What is Pilotlight?").output


async def stream():
    """run_stream"""
    async with Agent(OpenAIChatModel(CHAT), model_settings=few).run_stream("Hi") as answer:
        assert [part async for part in answer.stream_text(delta=True)]


run(text, structured, default, stream)
