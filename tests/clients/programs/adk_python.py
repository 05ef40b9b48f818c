"""Google's Agent Development Kit, by its LiteLLM models."""

from google.adk.agents import LlmAgent
from google.adk.models.lite_llm import LiteLlm
from google.adk.runners import InMemoryRunner
from google.genai import types
from trying import WIDE, WIDE_KEY, WIDE_URL, run


def weather(city: str) -> str:
    """The weather of a city."""
    return f"it rains in {city}"


async def agent():
    """LlmAgent with a tool"""
    model = LiteLlm(model=f"openai/{WIDE}", api_base=WIDE_URL, api_key=WIDE_KEY, max_tokens=24)
    runner = InMemoryRunner(
        agent=LlmAgent(name="one", model=model, instruction="Be short.", tools=[weather]), app_name="tried"
    )
    session = await runner.session_service.create_session(app_name="tried", user_id="user")
    said = types.Content(role="user", parts=[types.Part(text="What is Pilotlight?")])
    events = [event async for event in runner.run_async(user_id="user", session_id=session.id, new_message=said)]
    assert events[-1].content.parts[0].text, events[-1]
    assert events[-1].usage_metadata.candidates_token_count > 0


run(agent)
