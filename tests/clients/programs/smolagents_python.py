"""smolagents."""

from smolagents import ChatMessage, MessageRole, OpenAIModel, Tool, ToolCallingAgent
from trying import WIDE, WIDE_KEY, WIDE_URL, run

model = OpenAIModel(model_id=WIDE, api_base=WIDE_URL, api_key=WIDE_KEY, max_tokens=60)
SAY = [ChatMessage(role=MessageRole.USER, content=[{"type": "text", "text": "What is Pilotlight?"}])]


class Weather(Tool):
    name, description, output_type = "weather", "The weather of a city.", "string"
    inputs = {"city": {"type": "string", "description": "its name"}}

    def forward(self, city: str) -> str:
        return f"it rains in {city}"


def generate():
    """generate, with stop sequences"""
    answer = model.generate(SAY, stop_sequences=["<end>"])
    assert answer.content
    assert answer.token_usage.output_tokens > 0


def stream():
    """generate_stream"""
    assert "".join(delta.content or "" for delta in model.generate_stream(SAY))


def agent():
    """ToolCallingAgent, tool_choice=required"""
    steps = ToolCallingAgent(tools=[Weather()], model=model, max_steps=2).run(
        "How is the weather in Rome?", return_full_result=True
    )
    assert steps.token_usage.output_tokens > 0


run(generate, stream, agent)
