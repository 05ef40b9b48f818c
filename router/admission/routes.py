"""Step 3: which inference routes there are, each told once: what it takes, whom it is for, and what is said of it.

To serve another one is an entry here, its table of fields (`field_tables.py`), and its path in `runtime/forms.py`, by
which a replica's gate lets it through. The URL, the refusals of other routes, `/openapi.json` and the reference are
made of these. The failure to survive is a route that is half there: a test holds each to be known to the gate, and to
have no field that its table lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from router.admission import field_tables
from router.admission.fields import Table
from runtime.forms import FORMS, Form
from runtime.wire import Task

MOST_SEQUENCES = 128  # prompts times choices of one body: each is a sequence of the engine's, and takes a slot
MOST_INPUTS = 2048  # in one embeddings body, as at OpenAI


@dataclass(frozen=True, slots=True)
class Route:
    """One route we serve: its name behind `/v1/`, its path at the replica, the task it needs, the field it cannot do
    without, and all it takes.
    """

    name: str
    path: str
    task: Task
    needs: str
    also: str  # a field that is as much needed; "": none
    fields: Table
    texts: (
        int  # how many `needs` may hold, each a sequence of the engine's; 0: it is one conversation, whatever is in it
    )
    form: Form  # whose API it is
    says: str  # what it does
    answers: tuple[str, ...]  # fields that its answer always has
    head: bytes  # of the request to the replica, up to the value of x-request-id

    @property
    def streams(self) -> bool:
        return "stream" in self.fields


def _route(
    name: str,
    task: Task,
    table: Table,
    *,
    needs: str,
    also: str = "",
    texts: int = 0,
    path: str = "",
    says: str,
    answers: str,
) -> Route:
    """`path`: at the replica, where that is another; `answers`: names with blanks between them."""
    path = path or f"/v1/{name}"
    head = f"POST {path} HTTP/1.1\r\nhost: replica\r\ncontent-type: application/json\r\nx-request-id: "
    return Route(name, path, task, needs, also, table, texts, FORMS[path], says, tuple(answers.split()), head.encode())


ROUTES: Mapping[str, Route] = {
    route.name: route
    for route in (
        _route(
            "chat/completions",
            "generate",
            field_tables.CHAT,
            needs="messages",
            says="Answer a conversation.",
            answers="id object choices usage",
        ),
        _route(
            "completions",
            "generate",
            field_tables.COMPLETIONS,
            needs="prompt",
            texts=MOST_SEQUENCES,
            says="Go on from a text.",
            answers="id object choices usage",
        ),
        _route(
            "embeddings",
            "embed",
            field_tables.EMBEDDINGS,
            needs="input",
            texts=MOST_INPUTS,
            says="Turn texts into vectors.",
            answers="object data usage",
        ),
        _route(
            "rerank",
            "embed",
            field_tables.RERANK,
            needs="documents",
            also="query",
            texts=MOST_INPUTS,
            path="/rerank",
            says="Order documents by what they say about a query.",
            answers="id results usage",
        ),
        _route(
            "score",
            "embed",
            field_tables.SCORE,
            needs="text_2",
            also="text_1",
            texts=MOST_INPUTS,
            path="/score",
            says="Say how near texts are to each other.",
            answers="id data usage",
        ),
        _route(
            "responses",
            "generate",
            field_tables.RESPONSES,
            needs="input",
            says="Answer, as OpenAI's Responses API does; nothing is stored.",
            answers="id object output status",
        ),
        _route(
            "messages",
            "generate",
            field_tables.MESSAGES,
            needs="messages",
            also="max_tokens",
            says="Answer a conversation, as Anthropic's Messages API does.",
            answers="id type role content",
        ),
        _route(
            "messages/count_tokens",
            "generate",
            field_tables.COUNT_TOKENS,
            needs="messages",
            says="Count the tokens of a conversation; nothing is billed.",
            answers="input_tokens",
        ),
    )
}
