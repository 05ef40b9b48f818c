"""Open Interpreter, as a library: its own instructions, a question, nothing is run."""

from interpreter import interpreter
from trying import WIDE, WIDE_KEY, WIDE_URL, run

interpreter.offline = True
interpreter.auto_run = False
interpreter.llm.model = f"openai/{WIDE}"
interpreter.llm.api_base, interpreter.llm.api_key = WIDE_URL, WIDE_KEY
interpreter.llm.context_window, interpreter.llm.max_tokens = 16_000, 40
interpreter.llm.supports_functions = False


def chat():
    """chat"""
    said = interpreter.chat("What is Pilotlight?", display=False)
    assert any(each["role"] == "assistant" for each in said), said


def stream():
    """streamed"""
    parts = list(interpreter.chat("What is it for?", display=False, stream=True))
    assert any(part.get("content") for part in parts)


run(chat, stream)
