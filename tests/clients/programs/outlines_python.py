"""Outlines: a server of vLLM's kind, whose answers it constrains."""

import json
from typing import Literal

import openai
import outlines
from pydantic import BaseModel
from trying import CHAT, run


class Answer(BaseModel):
    yes: bool


client = openai.OpenAI()


def schema():
    """from_openai, a Pydantic model"""
    json.loads(outlines.from_openai(client, CHAT)("Is it serverless?", Answer, max_tokens=30))


def constrained():
    """from_vllm: schema, choice, regular expression"""
    model = outlines.from_vllm(client, CHAT)
    json.loads(model("Is it serverless?", Answer, max_tokens=30))
    assert model("Is it serverless?", Literal["yes", "no"], max_tokens=4) in ("yes", "no")
    assert model("A number", outlines.regex(r"[0-9]{3}"), max_tokens=8).isdigit()


def stream():
    """stream"""
    assert "".join(outlines.from_openai(client, CHAT).stream("What is Pilotlight?", max_tokens=8))


run(schema, constrained, stream)
