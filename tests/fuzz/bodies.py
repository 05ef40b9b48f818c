"""Bodies of inference calls, read as `router/admission/openai.py` reads them, and what would go on to the engine of
those that are taken.
"""

from __future__ import annotations

import json

from router.admission.openai import body_for, own_field, read
from router.admission.routes import MOST_SEQUENCES, ROUTES
from router.errors import RouterError

SALT = "s" * 64
SEEDS = (
    b'\x00{"messages":[{"role":"user","content":"hi"}],"n":2,"stream":true,"stream_options":{"include_usage":true}}',
    b'\x00{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"https://a.example/b"}}]}]}',
    b'\x00{"messages":[{"role":"user"}],"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":{"type":"object"}}}}',
    b'\x00{"messages":[{"role":"user"}],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"tool_choice":"auto"}',
    b'\x01{"prompt":["a","b"],"n":8,"echo":true,"logprobs":1,"stop":["x"],"logit_bias":{"1":-100},"model":"tiny"}',
    b'\x01{"model":null,"prompt":[[1,2],[3]],"structured_outputs":{"json":"{\\"type\\":\\"object\\"}"},"seed":-1}',
    b'\x01{"cache_\\u0073alt":"x","prompt":"a","prompt":"b"}',
    b'\x02{"input":["a","b"],"encoding_format":"base64","dimensions":3}',
)


def target(data: bytes) -> None:
    """The first byte chooses the route. What is taken reaches the engine as it was read here, under our salt and this
    endpoint's name.
    """
    if not data:
        return
    routes = list(ROUTES.values())
    body = data[1:]
    try:
        asked = read(body, routes[data[0] % len(routes)])
        sent = b"".join(body_for("tiny", asked, body, own_field("cache_salt", SALT)))
    except RouterError as error:
        assert error.status in (400, 404)
        assert len(error.message) < 500
        return
    assert 1 <= asked.sequences <= MOST_SEQUENCES
    engine = json.loads(sent)
    assert engine["cache_salt"] == SALT and engine["model"] == "tiny"
    assert set(engine) == {*asked.fields, "cache_salt", "model"}
    assert asked.stream == bool(engine.get("stream"))
    assert (engine.get("n") or 1) * asked.choices == asked.choices**2
