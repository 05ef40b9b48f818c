"""Instructor."""

import instructor
import openai
from pydantic import BaseModel
from trying import CHAT, SAY, run


class Answer(BaseModel):
    yes: bool


def schema():
    """JSON_SCHEMA"""
    client = instructor.from_openai(openai.OpenAI(), mode=instructor.Mode.JSON_SCHEMA)
    assert isinstance(
        client.chat.completions.create(model=CHAT, messages=SAY, response_model=Answer, max_tokens=40), Answer
    )


async def awaited():
    """async"""
    client = instructor.from_openai(openai.AsyncOpenAI(), mode=instructor.Mode.JSON_SCHEMA)
    assert isinstance(
        await client.chat.completions.create(model=CHAT, messages=SAY, response_model=Answer, max_tokens=40), Answer
    )


run(schema, awaited)
