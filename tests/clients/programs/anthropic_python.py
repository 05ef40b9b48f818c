"""Anthropic's client, at /v1/messages."""

import anthropic
from trying import CHAT, KEY, ORIGIN, SAY, raises, run

client = anthropic.Anthropic(base_url=f"{ORIGIN}/e/{CHAT}", auth_token=KEY, api_key=None)


def message():
    """messages"""
    answer = client.messages.create(model=CHAT, max_tokens=16, messages=SAY)
    assert answer.content
    assert answer.usage.output_tokens > 0


def stream():
    """stream"""
    with client.messages.stream(model=CHAT, max_tokens=16, messages=SAY) as events:
        assert "".join(events.text_stream)


def key():
    """x-api-key"""
    assert (
        anthropic.Anthropic(base_url=f"{ORIGIN}/e/{CHAT}", api_key=KEY)
        .messages.create(model=CHAT, max_tokens=8, messages=SAY)
        .content
    )


def wrong_key():
    """401"""
    stranger = anthropic.Anthropic(base_url=f"{ORIGIN}/e/{CHAT}", auth_token="pl_wrong", api_key=None)
    raises(anthropic.AuthenticationError, lambda: stranger.messages.create(model=CHAT, max_tokens=8, messages=SAY))


run(message, stream, key, wrong_key)
