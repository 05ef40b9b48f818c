"""Langfuse's wrapper of OpenAI's client: what it would tell Langfuse is collected here."""

from langfuse import Langfuse
from langfuse.openai import openai
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from trying import CHAT, SAY, run

told = InMemorySpanExporter()
langfuse = Langfuse(public_key="pk", secret_key="sk", base_url="http://127.0.0.1:9", span_exporter=told)
client = openai.OpenAI()


def usage():
    """The counts of the last call that was told."""
    langfuse.flush()
    attributes = told.get_finished_spans()[-1].attributes
    return next(value for name, value in attributes.items() if "usage" in name)


def chat():
    """chat, its usage"""
    answer = client.chat.completions.create(model=CHAT, messages=SAY, max_tokens=8)
    assert str(answer.usage.completion_tokens) in usage()


def stream():
    """stream, its usage"""
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model=CHAT, messages=SAY, max_tokens=8, **asked))
    assert str(chunks[-1].usage.completion_tokens) in usage()


def responses():
    """Responses API"""
    assert client.responses.create(model=CHAT, input="Hi", max_output_tokens=16, store=False).output_text
    assert usage()


assert SimpleSpanProcessor
run(chat, stream, responses)
