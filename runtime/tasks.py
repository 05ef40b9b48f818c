"""The table of tasks and of inference routes: what a model can do, and the paths at which it is asked. Pure.

A replica's gate (step 11), the router's admission (step 3) and `/openapi.json` are made of this table. So are the
configuration of endpoints, the canaries and the reference. To serve another route, add a `Route` here and its fields in
`router/admission/routes.py`. To serve another task, add a `Kind` here and its canary in `runtime/engine/canary.py`. The
failure to survive is an entry that is half there. A route that only one side knows would be served to nobody, or
counted by nobody. A task without a canary would serve whatever it says, so it is not deployed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from runtime.forms import Form

Task = Literal["generate", "embed", "score"]
GENERATE: Final = "generate"
EMBED: Final = "embed"
SCORE: Final = "score"
DEFAULT: Task = GENERATE


class Canary(NamedTuple):
    """What a task's canary is counted as, in tokens, if the engine is metered rightly."""

    read: int  # more than one, as a prefill has; each step reads all weights
    made: int

    def prompt(self, vocabulary: int) -> list[int]:
        """Token ids that a vocabulary of that size has, the same at every start."""
        return [1 + (7 * number) % (vocabulary - 1) for number in range(1, self.read + 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is particular to a task."""

    does: str  # in the words of `deploy --help`
    canary: Canary | None  # None: there is none, so no endpoint may have this task
    pools: bool = True  # it reads its inputs, each in one step, and generates nothing
    parks: bool = False
    engine_args: Mapping[str, str | bool] = field(default_factory=dict)  # that the engine must have for it


# Otherwise vLLM would work on a late-interaction model's texts under ids of its own, which are nobody's requests.
_POOLING: Mapping[str, str | bool] = {"runner": "pooling", "enable-flash-late-interaction": False}

KINDS: Mapping[Task, Kind] = {
    GENERATE: Kind(does="answers in text", canary=Canary(read=2, made=2), pools=False, parks=True),
    EMBED: Kind(
        does="makes vectors",
        canary=Canary(read=2, made=0),
        engine_args={**_POOLING, "convert": "embed"},
    ),
    SCORE: Kind(
        does="scores pairs of texts",
        canary=Canary(read=4, made=0),
        engine_args=_POOLING,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One inference route."""

    name: str  # behind `/v1/`, to callers
    tasks: tuple[Task, ...]  # a model must do one of them
    says: str  # what it does
    answers: tuple[str, ...]  # fields that its answer always has
    form: Form = "openai"  # whose API it is
    streams: bool = False
    counted: bool = True  # False: no model works for it, so nothing is counted or billed
    engine_path: str = ""  # at the replica, where that is another than to callers

    @property
    def public(self) -> str:
        return f"/v1/{self.name}"

    @property
    def path(self) -> str:
        """At the replica."""
        return self.engine_path or self.public


CHAT = Route(
    name="chat/completions",
    tasks=(GENERATE,),
    streams=True,
    says="Answer a conversation.",
    answers=("id", "object", "choices", "usage"),
)
COMPLETIONS = Route(
    name="completions",
    tasks=(GENERATE,),
    streams=True,
    says="Go on from a text.",
    answers=("id", "object", "choices", "usage"),
)
EMBEDDINGS = Route(
    name="embeddings",
    tasks=(EMBED,),
    says="Turn texts into vectors.",
    answers=("object", "data", "usage"),
)
RERANK = Route(
    name="rerank",
    tasks=(SCORE, EMBED),
    engine_path="/rerank",  # at `/v1/rerank` vLLM warns that it has moved
    says="Order documents by what they say about a query.",
    answers=("id", "results", "usage"),
)
PAIRS = Route(
    name="score",
    tasks=(SCORE, EMBED),
    engine_path="/score",
    says="Say how near texts are to each other.",
    answers=("id", "data", "usage"),
)
RESPONSES = Route(
    name="responses",
    tasks=(GENERATE,),
    form="responses",
    streams=True,
    says="Answer, as OpenAI's Responses API does; nothing is stored.",
    answers=("id", "object", "output", "status"),
)
MESSAGES = Route(
    name="messages",
    tasks=(GENERATE,),
    form="messages",
    streams=True,
    says="Answer a conversation, as Anthropic's Messages API does.",
    answers=("id", "type", "role", "content"),
)
COUNT_TOKENS = Route(
    name="messages/count_tokens",
    tasks=(GENERATE,),
    form="messages",
    counted=False,
    says="Count the tokens of a conversation; nothing is billed.",
    answers=("input_tokens",),
)

ROUTES = (CHAT, COMPLETIONS, EMBEDDINGS, RERANK, PAIRS, RESPONSES, MESSAGES, COUNT_TOKENS)
BY_PATH: Mapping[str, Route] = {route.path: route for route in ROUTES}
"""By their paths at a replica. Its gate lets nobody call any other."""


def canary_of(task: Task, kinds: Mapping[Task, Kind] = KINDS) -> Canary:
    """Raises ValueError for a task that has none."""
    canary = kinds[task].canary
    if canary is None:
        raise ValueError(
            f"{task} has no canary, by which a replica shows before it serves that its answers are right; "
            f"use one of {', '.join(name for name, kind in kinds.items() if kind.canary)}"
        )
    return canary


def deployable(task: Task) -> Task:
    """The task, if an endpoint may have it. Raises ValueError."""
    canary_of(task)
    return task


def described(kinds: Mapping[Task, Kind] = KINDS) -> str:
    """Every task, and what a model does that has it."""
    return ", ".join(f"{task} ({kind.does})" for task, kind in kinds.items() if kind.canary)


def routes_of(task: Task) -> tuple[Route, ...]:
    return tuple(route for route in ROUTES if task in route.tasks)
