"""Inspect AI."""

from inspect_ai.model import GenerateConfig, get_model
from trying import CHAT, KEY, URL, run

few = GenerateConfig(max_tokens=16)


async def compatible():
    """openai-api/"""
    answer = await get_model(f"openai-api/pilotlight/{CHAT}", base_url=URL, api_key=KEY, config=few).generate(
        "What is Pilotlight?"
    )
    assert answer.completion
    assert answer.usage.output_tokens > 0


async def default():
    """openai/ (Responses API)"""
    answer = await get_model(f"openai/{CHAT}", base_url=URL, api_key=KEY, config=few, responses_store=False).generate(
        "What is Pilotlight?"
    )
    assert answer.completion


run(compatible, default)
