"""The users of each scenario. Only locust loads it, in a process of its own. locust puts gevent in the place of
Python's sockets, and nothing else of ours may run on that.

`python -m loadtests` starts it and gives it variables. LOAD_URL, LOAD_KEY, LOAD_MODEL and LOAD_CA say where to call;
LOAD_SCENARIO and LOAD_IDLE_SECONDS, as what. LOAD_SAMPLES names the file of what was measured, one JSON line a call.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import random
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

from locust import User, constant_pacing, events, task

from loadtests.figures import Sample

URL, KEY, MODEL = urlsplit(os.environ["LOAD_URL"]), os.environ["LOAD_KEY"], os.environ["LOAD_MODEL"]
IDLE_SECONDS = float(os.environ["LOAD_IDLE_SECONDS"])
ROUND_SECONDS = IDLE_SECONDS + 9.0  # of `wake`: all calls at once, the rest of them, and time to be at zero again
QUESTIONS = ("What is Pilotlight?", "Why is the sky blue?", "Who are you?", "How do I deploy a model?")
CALL_SECONDS = 120.0

samples: list[Sample] = []


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca := os.environ.get("LOAD_CA"):
        context.load_verify_locations(ca)
    return context


CONTEXT = _context()


def _connect() -> http.client.HTTPConnection:
    if URL.scheme == "https":
        return http.client.HTTPSConnection(URL.hostname or "", URL.port, timeout=CALL_SECONDS, context=CONTEXT)
    return http.client.HTTPConnection(URL.hostname or "", URL.port, timeout=CALL_SECONDS)


class Client:
    """One user's connection, kept alive; http.client, so that the first token is seen when it comes."""

    def __init__(self) -> None:
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, question: str) -> Sample:
        """One streamed chat completion; reported to locust, and kept."""
        begin = time.monotonic()
        start, first, error = "", math.inf, ""
        try:
            start, first = self._stream(question, begin)
            if math.isinf(first):
                error = "the answer had no content"
        except (OSError, http.client.HTTPException, ValueError) as problem:
            error = f"{type(problem).__name__}: {problem}"
            self.close()
        sample = Sample(start, first, time.monotonic() - begin, error)
        samples.append(sample)
        problem_or_none = RuntimeError(error) if error else None
        for name, seconds in (("first token", first), ("whole answer", sample.latency)):
            events.request.fire(
                request_type=start or "none",
                name=name,
                response_time=0 if math.isinf(seconds) else seconds * 1000,
                response_length=0,
                exception=problem_or_none,
                context={},
            )
        return sample

    def _stream(self, question: str, begin: float) -> tuple[str, float]:
        if self._connection is None:
            self._connection = _connect()
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": question}],
            "stream": True,
            "max_tokens": 32,
            "temperature": 0,
        }
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        self._connection.request("POST", f"{URL.path}/chat/completions", json.dumps(body), headers)
        answer = self._connection.getresponse()
        if answer.status != 200:
            raise ValueError(f"HTTP {answer.status}: {answer.read(300).decode(errors='replace')}")
        first, ended = math.inf, False
        for line in iter(answer.readline, b""):
            if math.isinf(first) and b'"content":"' in line and b'"content":""' not in line:
                first = time.monotonic() - begin
            if line.startswith(b'data: {"error"'):
                raise ValueError(line[6:300].decode(errors="replace"))
            ended = ended or line.startswith(b"data: [DONE]")
        if not ended:
            raise ValueError("the stream ended without [DONE]")
        return answer.headers["x-pilotlight-start"] or "", first

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Asking(User):  # type: ignore[misc]
    abstract = True

    def on_start(self) -> None:
        self.asking = Client()

    def on_stop(self) -> None:
        self.asking.close()

    def ask(self) -> Sample:
        return self.asking.ask(random.choice(QUESTIONS))


class Wake(Asking):
    """Everybody calls an endpoint at zero at the same moment, twice more while it is warm, and then leaves it alone
    until it is at zero.
    """

    began = 0.0

    @task  # type: ignore[untyped-decorator]
    def round(self) -> None:
        if not Wake.began:
            Wake.began = time.monotonic()
        for _ in range(3):
            self.ask()

    def wait_time(self) -> float:
        return ROUND_SECONDS - (time.monotonic() - Wake.began) % ROUND_SECONDS


class Steady(Asking):
    """A call a second each."""

    wait_time = constant_pacing(1)

    @task  # type: ignore[untyped-decorator]
    def call(self) -> None:
        self.ask()


class IdleCycle(Asking):
    """Pauses around the idle timeout, so that calls meet an endpoint that is ready, at zero, and on its way there."""

    def wait_time(self) -> float:
        return random.choice((0.2, 0.8, 1.0, 1.2, 3.0)) * (IDLE_SECONDS + 0.1)

    @task  # type: ignore[untyped-decorator]
    def call(self) -> None:
        self.ask()


@events.test_stop.add_listener  # type: ignore[untyped-decorator]
def _keep(**_: Any) -> None:
    with open(os.environ["LOAD_SAMPLES"], "w") as file:
        file.writelines(json.dumps(sample) + "\n" for sample in samples)
