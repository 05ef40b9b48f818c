"""Tasks and routes stand in one table, each entry whole: at the router, at a replica's gate, in its API's form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import AfterValidator

from activator.wire import Changes
from router import errors
from router.admission.routes import CHECKS, ROUTES, Route, wrong_task
from router.edge.web import SERVED
from router.errors import BadRequest, UpstreamError
from router.relay import meter
from router.spool.record import NO_TOKENS, Tokens
from runtime import tasks
from runtime.forms import DONE, TOKEN, Form
from runtime.serving.gate import counts_header
from runtime.serving.streams import STREAMS
from runtime.serving.usage import Counts
from runtime.tasks import BY_PATH, GENERATE, KINDS, Kind, Task, canary_of, deployable

ROOT = Path(__file__).parents[2]


def test_a_gate_lets_through_what_a_router_sends_and_nothing_else() -> None:
    assert sorted(route.path for route in ROUTES.values()) == sorted(BY_PATH)
    assert set(CHECKS) == set(tasks.ROUTES)


def test_every_task_is_whole() -> None:
    assert set(KINDS) == set(get_args(Task)) and all(routes_of_task(task) for task in KINDS)
    for task in KINDS:
        canary = canary_of(task)
        prompt = canary.prompt(1000)
        assert len(prompt) == canary.read > 1 and all(0 < token < 1000 for token in prompt)
        assert (canary.made == 0) is KINDS[task].pools, "it is counted as the task's own answers are"


def test_a_task_without_a_canary_is_not_deployed() -> None:
    silent: dict[Task, Kind] = {**KINDS, "score": replace(KINDS["score"], canary=None)}
    with pytest.raises(ValueError, match=r"score has no canary.*use one of generate, embed"):
        canary_of("score", silent)
    asked = [each.func for each in Changes.model_fields["task"].metadata if isinstance(each, AfterValidator)]
    assert asked == [deployable], "a configuration asks for it"


def test_a_route_of_another_task_says_which_it_needs_and_what_is_served() -> None:
    error = wrong_task("chat", GENERATE, ROUTES["rerank"])
    assert "'chat' does the task 'generate', and /v1/rerank needs 'score' or 'embed'" in error.message
    assert "/v1/chat/completions" in error.message and "/v1/embeddings" not in error.message


def routes_of_task(task: Task) -> list[Route]:
    return [route for route in ROUTES.values() if task in route.tasks]


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_a_route_is_whole(route: Route) -> None:
    assert {route.needs, route.also or route.needs} <= set(route.fields)
    assert route.streams is ("stream" in route.fields) and route.tasks
    assert (
        route.head
        == f"POST {route.path} HTTP/1.1\r\nhost: replica\r\ncontent-type: application/json\r\nx-request-id: ".encode()
    )
    assert route.says.endswith(".") and route.answers
    assert f"/v1/{route.name}" in SERVED


def test_every_form_is_whole() -> None:
    assert set(TOKEN) == set(STREAMS) == set(get_args(Form)) == {route.form for route in ROUTES.values()}


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
    assert (meter.reported_tokens(counted), meter.has_last_event(counted)) == (Tokens(7, 2, 5, "engine"), True)
    nobody: Any = Heard(form, stream.counted(event, counts_header(None)))
    assert (meter.reported_tokens(nobody), meter.has_last_event(nobody)) == (NO_TOKENS, True)
    cut: Any = Heard(form, stream.broken(stream.retold(b""), counts_header(Counts(7, 2, 5))))
    assert (meter.reported_tokens(cut), meter.has_last_event(cut)) == (Tokens(7, 2, 5, "engine", broken=True), False)
