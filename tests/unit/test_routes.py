"""Each inference route is told once, and whole: to the router, to a replica's gate, in the forms of its API."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from router import errors
from router.admission.routes import ROUTES, Route
from router.edge.web import SERVED
from router.errors import BadRequest, UpstreamError
from router.relay import meter
from router.relay.meter import NOTHING, Tokens
from runtime.forms import DONE, FORMS, FREE, TOKEN, Form
from runtime.serving.gate import counts_header
from runtime.serving.streams import STREAMS
from runtime.serving.usage import Counts


def test_a_gate_lets_through_what_a_router_sends_and_nothing_else() -> None:
    assert sorted(route.path for route in ROUTES.values()) == sorted(FORMS)
    assert set(FORMS) >= FREE


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_a_route_is_whole(route: Route) -> None:
    assert {route.needs, route.also or route.needs} <= set(route.fields)
    assert (
        route.head
        == f"POST {route.path} HTTP/1.1\r\nhost: replica\r\ncontent-type: application/json\r\nx-request-id: ".encode()
    )
    assert route.says.endswith(".") and route.answers
    assert f"/v1/{route.name}" in SERVED


def test_every_form_is_whole() -> None:
    assert set(TOKEN) == set(STREAMS) == set(get_args(Form)) == set(FORMS.values())


@pytest.mark.parametrize("form", get_args(Form))
def test_an_error_in_a_stream_looks_the_same_whoever_tells_it(form: Form) -> None:
    ours = errors.event(BadRequest("no"), form)
    theirs = STREAMS[form].retold(b'data: {"error": {"message": "bad", "code": 400}}\n\n')
    assert _but_the_words(ours) == _but_the_words(theirs)
    assert STREAMS[form].breaks(errors.event(UpstreamError("gone"), form))


def _but_the_words(event: bytes) -> object:
    head, _, data = event.partition(b"data: ")
    told = json.loads(data)
    for part in (told, told["error"]):
        part.pop("message", None)
    return head, told


class Heard:
    """An upstream that has heard a whole stream of this form."""

    usage = b""

    def __init__(self, form: Form, tail: bytes) -> None:
        self.token, self.tail = TOKEN[form], tail


LAST: dict[Form, bytes] = {
    "openai": DONE,
    "responses": b"event: response.completed\ndata: {}\n\n",
    "messages": b"event: message_stop\ndata: {}\n\n",
}


@pytest.mark.parametrize("form", get_args(Form))
def test_what_a_gate_writes_a_meter_reads(form: Form) -> None:
    stream, event = STREAMS[form], LAST[form]
    assert stream.ends(event)
    counted: Any = Heard(form, stream.counted(event, counts_header(Counts(7, 2, 5))))
    assert (meter.told(counted), meter.whole(counted)) == (Tokens(7, 2, 5, "engine"), True)
    nobody: Any = Heard(form, stream.counted(event, counts_header(None)))
    assert (meter.told(nobody), meter.whole(nobody)) == (NOTHING, True)
    cut: Any = Heard(form, stream.broken(stream.retold(b""), counts_header(Counts(7, 2, 5))))
    assert (meter.told(cut), meter.whole(cut)) == (Tokens(7, 2, 5, "engine", broken=True), False)
