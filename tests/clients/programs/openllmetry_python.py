"""OpenLLMetry's instrumentation of OpenAI's client: what it would tell a collector is collected here."""

import openai
from opentelemetry.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from trying import CHAT, SAY, run

told, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(told))
OpenAIInstrumentor().instrument(tracer_provider=provider)
client = openai.OpenAI()


def tokens():
    """Of the answer, as the last span has them."""
    attributes = told.get_finished_spans()[-1].attributes
    return next(
        value for name, value in attributes.items() if "usage" in name and ("output" in name or "completion" in name)
    )


def chat():
    """chat, its usage"""
    assert tokens_of(client.chat.completions.create(model=CHAT, messages=SAY, max_tokens=8)) == tokens()


def stream():
    """stream, its usage"""
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    assert (
        tokens_of(list(client.chat.completions.create(model=CHAT, messages=SAY, max_tokens=8, **asked))[-1]) == tokens()
    )


def tokens_of(answer):
    return answer.usage.completion_tokens


run(chat, stream)
