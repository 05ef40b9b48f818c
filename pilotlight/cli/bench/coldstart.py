"""`pilotlight bench coldstart`: wakes of an endpoint from zero, as a client sees them, phase by phase.

Every wake is asked over a fresh TLS connection, and timed from before it is opened to the first token of content. The
phases are read from the settled row. Stock vLLM may be measured between the wakes (`stock.py`), on a machine that is
otherwise idle. It has the same snapshot, context and cache, and is timed from the start of its process to its first
token.

Before a wake the endpoint rests on the rung it is to be woken from:

    parked      an engine keeps its place and has given its memory back
    standby     there is no replica, and a rehearsed engine is ready
    staged      there is neither
"""

from __future__ import annotations

import ssl
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx

from pilotlight.cli.api import Api, ApiError
from runtime.tasks import CHAT

QUESTION = "What is Pilotlight?"
STANDBY_SECONDS = 10.0  # that one which made a replica has to go, where none is kept
REST_SECONDS = 0.5  # after a replica's end the kernel still gives its memory back
RUNGS = ("standby", "parked", "staged")
PHASES = ("hold", "place", "fetch", "spawn", "load", "init", "canary", "first_token")  # one after the other


class BenchFailed(ApiError):
    """A wake that was none, or gave no token; the text says which."""


def coldstart(
    api: Api,
    name: str,
    key: str,
    *,
    wakes: int,
    stock: Callable[[], float] | None = None,
    stock_starts: int = 0,
    rung: str = "standby",
    rest: float = REST_SECONDS,
) -> dict[str, Any]:
    """Measure; returns what `summary` says. Raises BenchFailed, ApiError."""
    ours: list[dict[str, float]] = []
    others: list[float] = []
    every = max(1, wakes // stock_starts) if stock and stock_starts else wakes + 1
    for number in range(1, wakes + 1):
        ours.append(wake(api, name, key, rung=rung, rest=rest))
        say(f"wake {number} of {wakes}: {ours[-1]['seconds']:.3f} s")
        if stock and number % every == 0 and len(others) < stock_starts:
            until_rest(api, name, rung)
            others.append(stock())
            say(f"stock: {others[-1]:.2f} s")
    return summary(ours, others)


def wake(api: Api, name: str, key: str, *, rung: str = "standby", rest: float = REST_SECONDS) -> dict[str, float]:
    """One wake from a rung: {"seconds": …, phase: seconds…}. Raises BenchFailed."""
    until_rest(api, name, rung)
    time.sleep(rest)
    seconds, request_id = first_token(api, name, key)
    row = settled(api, request_id)
    if row["start"] != "cold":
        raise BenchFailed(f"request {request_id} found {name} awake: somebody else calls it")
    return {"seconds": seconds} | {phase["name"]: phase["seconds"] for phase in row["phases"]}


def first_token(api: Api, name: str, key: str, question: str = QUESTION) -> tuple[float, str]:
    """Seconds from before the connection is opened to the first content token, and the request's id. Raises
    BenchFailed, HTTPError.
    """
    body = {"messages": [{"role": "user", "content": question}], "stream": True, "max_tokens": 16, "temperature": 0}
    context = ssl.create_default_context(cafile=api.ca_file)
    begin = time.monotonic()
    with httpx.Client(verify=context, timeout=300, trust_env=False) as client:
        url, headers = f"{api.url}/e/{name}{CHAT.public}", {"authorization": f"Bearer {key}"}
        with client.stream("POST", url, json=body, headers=headers) as answer:
            took = first_content(answer.iter_lines(), begin)
            if answer.status_code != 200 or took is None:
                raise BenchFailed(f"a call of {name} gave HTTP {answer.status_code} and no token")
            return took, answer.headers["x-request-id"]


def first_content(lines: Iterator[str], begin: float) -> float | None:
    """Reads the whole stream; seconds from `begin` to its first token of content."""
    took = None
    for line in lines:
        if took is None and '"content":"' in line and '"content":""' not in line:
            took = time.monotonic() - begin
    return took


def until_rest(api: Api, name: str, rung: str = "standby", seconds: float = 600) -> None:
    """Wait until the endpoint rests on that rung. Raises BenchFailed, at once or soon where it rests on another."""
    deadline = time.monotonic() + seconds
    beside: float | None = None  # since when it has been at zero, but for a standby
    while not rests(status := api.call("GET", "/status"), name, rung):
        beside = (beside or time.monotonic()) if rung == "staged" and rests(status, name, "standby") else None
        if beside and time.monotonic() > beside + STANDBY_SECONDS:
            raise BenchFailed(_A_STANDBY.format(name=name))
        if time.monotonic() > deadline:
            raise BenchFailed(
                f"{name} was not {_AT_REST[rung]} within {seconds:g} s: is its idle timeout short, and min_replicas 0?"
            )
        time.sleep(0.05)


_AT_REST = {
    "parked": "parked",
    "standby": "at zero beside a ready standby",
    "staged": "at zero without a ready standby",
}
_A_STANDBY = (
    "a standby is kept ready, so {name} would wake from standby. Measure that with --from standby, or set PILOTLIGHT_RUNTIME__STANDBYS=0, "
    'or deploy every endpoint with zero = "staged"'
)


def rests(status: dict[str, Any], name: str, rung: str) -> bool:
    """Does the endpoint rest on that rung? Raises BenchFailed where it rests on another, for that will not change."""
    endpoints = [endpoint for endpoint in status["endpoints"] if endpoint["name"] == name]
    states = [
        replica["state"]
        for endpoint in endpoints
        for revision in endpoint["revisions"]
        for replica in revision["replicas"]
    ]
    if rung == "parked":
        if not states:
            raise BenchFailed(
                f'{name} went to zero instead of being parked: deploy it with zero = "parked", and call it once before'
            )
        return set(states) == {"parked"}
    if "parked" in states:
        raise BenchFailed(
            f"{name} is parked and does not go to zero: measure it with --from parked, or deploy it with another `zero`"
        )
    return not states and (rung == "standby") == any(node["standbys_ready"] for node in status["nodes"])


def settled(api: Api, request_id: str, seconds: float = 30) -> dict[str, Any]:
    """The usage row of a request once the ledger has written it. Raises ApiError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            row: dict[str, Any] = api.call("GET", f"/requests/{request_id}")
            return row
        except ApiError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def summary(ours: list[dict[str, float]], stock: list[float]) -> dict[str, Any]:
    """p50, p95 and p99 of the whole and of each phase, in seconds; `stock_s` and `ratio` where stock was started."""
    names = ordered(set().union(*ours) - {"seconds"})
    found: dict[str, Any] = {"wakes": len(ours), **percentiles([wake["seconds"] for wake in ours])}
    found["max_s"] = max(wake["seconds"] for wake in ours)
    found["phases"] = {name: percentiles([wake.get(name, 0.0) for wake in ours]) for name in names}
    found["all_s"] = [round(wake["seconds"], 4) for wake in ours]
    if stock:
        found |= {
            "stock_s": statistics.median(stock),
            "stock_all_s": stock,
            "ratio": statistics.median(stock) / found["p50_s"],
        }
    return found


def ordered(phases: Iterable[str]) -> list[str]:
    """The phases in the order in which they follow each other; unknown ones last."""
    return sorted(phases, key=lambda name: (PHASES.index(name) if name in PHASES else len(PHASES), name))


def percentiles(values: list[float]) -> dict[str, float]:
    """Nearest-rank percentiles, in the unit of the values."""
    ranked = sorted(values)

    def at(share: float) -> float:
        return ranked[max(0, -(-int(share * 1000) * len(ranked) // 1000) - 1)]

    return {"p50_s": statistics.median(ranked), "p95_s": at(0.95), "p99_s": at(0.99)}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
