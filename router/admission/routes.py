"""What each inference route takes: its closed set of fields, those it cannot do without, and how many texts. Step 3.

The routes themselves stand in the callee's table (`runtime/tasks.py`). To serve another one is an entry there, and here
its table of fields (`field_tables.py`). The URL, the refusals of other routes, `/openapi.json` and the reference are
made of both. The failure to survive is a route that is half there. A test holds each of the callee's routes to be here,
and to have no field that its table lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from router.admission import field_tables
from router.admission.fields import Table
from router.errors import BadRequest
from runtime import tasks
from runtime.forms import Form
from runtime.tasks import KINDS, Task

MOST_SEQUENCES = 128  # prompts times choices of one body: each is a sequence of the engine's, and takes a slot
MOST_INPUTS = 2048  # in one embeddings body, as at OpenAI


@dataclass(frozen=True, slots=True, kw_only=True)
class Takes:
    """What a body for a route may and must have."""

    fields: Table
    needs: str  # the field that it cannot do without
    also: str = ""  # a field that is as much needed; "": none
    texts: int = 0  # how many `needs` may hold, each a sequence of the engine's; 0: it is one conversation


@dataclass(frozen=True, slots=True)
class Route:
    """One route we serve: the callee's entry with what we check of it, and flat, for the hot path."""

    name: str  # behind `/v1/`
    path: str  # at the replica
    tasks: tuple[Task, ...]
    form: Form
    streams: bool
    says: str
    answers: tuple[str, ...]
    fields: Table
    needs: str
    also: str
    texts: int
    pools: bool  # what it asks for takes the engine a moment a text
    head: bytes  # of the request to the replica, up to the value of x-request-id


CHECKS: Mapping[tasks.Route, Takes] = {
    tasks.CHAT: Takes(fields=field_tables.CHAT, needs="messages"),
    tasks.COMPLETIONS: Takes(fields=field_tables.COMPLETIONS, needs="prompt", texts=MOST_SEQUENCES),
    tasks.EMBEDDINGS: Takes(fields=field_tables.EMBEDDINGS, needs="input", texts=MOST_INPUTS),
    tasks.RERANK: Takes(fields=field_tables.RERANK, needs="documents", also="query", texts=MOST_INPUTS),
    tasks.PAIRS: Takes(fields=field_tables.SCORE, needs="text_2", also="text_1", texts=MOST_INPUTS),
    tasks.RESPONSES: Takes(fields=field_tables.RESPONSES, needs="input"),
    tasks.MESSAGES: Takes(fields=field_tables.MESSAGES, needs="messages", also="max_tokens"),
    tasks.COUNT_TOKENS: Takes(fields=field_tables.COUNT_TOKENS, needs="messages"),
}


def _route(served: tasks.Route, takes: Takes) -> Route:
    head = f"POST {served.path} HTTP/1.1\r\nhost: replica\r\ncontent-type: application/json\r\nx-request-id: "
    return Route(
        name=served.name,
        path=served.path,
        tasks=served.tasks,
        form=served.form,
        streams=served.streams,
        says=served.says,
        answers=served.answers,
        fields=takes.fields,
        needs=takes.needs,
        also=takes.also,
        texts=takes.texts,
        pools=all(KINDS[task].pools for task in served.tasks),
        head=head.encode(),
    )


ROUTES: Mapping[str, Route] = {served.name: _route(served, CHECKS[served]) for served in tasks.ROUTES}


def wrong_task(name: str, task: Task, route: Route) -> BadRequest:
    """What a caller is told whose endpoint, of this name and task, does not do what the route asks for."""
    needed = " or ".join(f"'{each}'" for each in route.tasks)
    served = ", ".join(each.public for each in tasks.routes_of(task))
    return BadRequest(
        f"'{name}' does the task '{task}', and /v1/{route.name} needs {needed}. Its own routes: {served}."
    )
