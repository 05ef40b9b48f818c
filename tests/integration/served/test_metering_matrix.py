"""Every kind of call, as its own `usage` says, as its row says, and as vLLM's own counters say: one start for all of
them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.system import System, dump, wait_until

TEXT, CHAT, VECTORS = "/v1/completions", "/v1/chat/completions", "/v1/embeddings"
LONG = 900  # tokens: nobody waits for them
WIDE = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(4800)}}  # compiles for minutes
MESSAGES = [{"role": "user", "content": "What is Pilotlight?"}]


@dataclass
class Call:
    """One call, and what came of it."""

    path: str
    body: dict[str, Any]
    leaves: bool = False
    request_id: str = ""
    status: int = 0
    usage: dict[str, Any] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)

    @property
    def choices(self) -> int:
        count: int = self.body.get("n", 1)
        return count

    @property
    def prompts(self) -> int:
        given = self.body.get("prompt")
        return len(given) if isinstance(given, list) and not isinstance(given[0], int) else 1

    def make(self, client: httpx.Client) -> None:
        with client.stream("POST", self.path, json=self.body) as answer:
            self.request_id, self.status = answer.headers["x-request-id"], answer.status_code
            if not self.body.get("stream") or answer.status_code != 200:
                self.usage = json.loads(answer.read()).get("usage") or {}
                return
            seen = set[int]()
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    self.events.append(line.removeprefix("data: "))
                    seen |= (
                        {choice["index"] for choice in json.loads(self.events[-1])["choices"]} if self.leaves else set()
                    )
                    if self.leaves and len(seen) == self.choices * self.prompts:
                        return
        told = [json.loads(event) for event in self.events if event != "[DONE]"]
        self.usage = next((event["usage"] for event in told if event.get("usage")), {})

    async def give_up(self, system: System, key: str) -> None:
        """Its id is in no answer: it is the row that was not there before."""
        async with system.async_client(key) as client:
            await system.leave(client, system.until_ready(self.body["model"]), self.path, self.body)


def many(endpoint: str) -> list[Call]:
    """n, streamed, left; several prompts, texts and tokens; nothing to make; a prompt that is there already."""
    calls = []
    for n in (1, 2, 8):
        for stream in (False, True):
            for leaves in (False, True):
                body: dict[str, Any] = {
                    "prompt": f"{n} {stream} {leaves}",
                    "n": n,
                    "max_tokens": LONG if leaves else 9,
                    "ignore_eos": True,
                }
                if stream:
                    body |= {"stream": True, "stream_options": {"include_usage": True}}
                calls.append(Call(TEXT, body, leaves))
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    long = [5 + place % 40 for place in range(300)]  # tokens: it fills two blocks of the cache
    calls += [
        Call(TEXT, {"prompt": ["one", "two more", "three"], "max_tokens": 4}),
        Call(TEXT, {"prompt": ["one", "two more", "three"], "n": 2, "max_tokens": 4} | usage),
        Call(TEXT, {"prompt": [[5, 6, 7], [8, 9]], "n": 2, "max_tokens": 3}),
        Call(
            TEXT,
            {"prompt": ["left", "in the middle"], "n": 2, "max_tokens": LONG, "ignore_eos": True} | usage,
            leaves=True,
        ),
        Call(TEXT, {"prompt": "say it again", "echo": True, "max_tokens": 5, "logprobs": 1}),
        Call(TEXT, {"prompt": "nothing new", "echo": True, "max_tokens": 0, "logprobs": 1}),
        Call(TEXT, {"prompt": "nothing new", "echo": True, "max_tokens": 0, "n": 2} | usage),
        Call(TEXT, {"prompt": "until", "max_tokens": 60, "stop": ["e", " "]}),
        Call(CHAT, {"messages": MESSAGES, "n": 2, "temperature": 1.0}),
        Call(CHAT, {"messages": MESSAGES, "n": 8, "max_tokens": 1}),
        Call(CHAT, {"messages": MESSAGES, "max_tokens": 20} | usage),
        Call(CHAT, {"messages": MESSAGES, "response_format": {"type": "json_object"}, "max_tokens": 8}),
        Call(TEXT, {"prompt": long, "n": 8, "max_tokens": 2}),
        Call(TEXT, {"prompt": long, "n": 2, "max_tokens": 2} | usage),
    ]
    for call in calls:
        call.body["model"] = endpoint
    return calls


def rows_of(system: System, endpoint: str, count: int) -> dict[str, dict[str, Any]]:
    return {row["event_id"]: row for row in system.usage(endpoint, count)}


def test_each_row_is_what_its_answer_says_and_all_are_what_the_engine_counted(system: System) -> None:
    key = system.deploy("many", "--slots", "32", "--allow", "echo_logprobs", "--idle-timeout", "60")
    calls = many("many")
    with system.client(key) as client:
        for call in calls:
            if call.leaves and not call.body.get("stream"):
                asyncio.run(call.give_up(system, key))
                continue
            call.make(client)
            assert call.leaves or call.status == 200, call
    rows = rows_of(system, "many", len(calls))
    assert len(rows) == len(calls)
    of_those_who_left = sorted(
        (row for row in rows.values() if not row["streamed"] and row["finish"] == "client_disconnect"),
        key=lambda row: row["admitted_at"],
    )
    for call in calls:
        if not call.request_id:
            call.request_id = of_those_who_left.pop(0)["event_id"]
    for call in calls:
        row = rows[call.request_id]
        assert row["finish"] == ("client_disconnect" if call.leaves else "complete"), dump(row)
        assert row["count_source"] in (("journal", "engine") if call.leaves else ("engine",)), dump(row)
        if call.leaves:
            assert row["input_tokens"] and 0 < row["output_tokens"] < LONG * call.choices, dump(row)
            continue
        details = call.usage["prompt_tokens_details"]
        assert (row["input_tokens"], row["output_tokens"]) == (
            call.usage["prompt_tokens"],
            call.usage.get("completion_tokens", 0),
        ), call
        if isinstance(call.body.get("prompt"), str) or call.path == CHAT:
            assert row["cached_tokens"] == details["cached_tokens"], (call, row)
        if call.body["max_tokens" if "max_tokens" in call.body else "model"] == 0:
            assert row["output_tokens"] == 0, call
    prompt, generation = system.engine_counters(system.until_ready("many"))
    assert generation == sum(row["output_tokens"] for row in rows.values())
    assert prompt == sum(rows[call.request_id]["input_tokens"] * call.choices for call in calls)
    assert any(row["cached_tokens"] for row in rows.values()), "nothing was cached, so nothing was tried"


def test_a_schema_that_compiles_for_minutes_holds_up_nobody(system: System) -> None:
    key = system.deploy("shaped", "--idle-timeout", "60")

    def body(schema: dict[str, Any]) -> dict[str, Any]:
        shape = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
        return {"messages": MESSAGES, "max_tokens": 40, "response_format": shape}

    path = "/e/shaped/v1/chat/completions"
    with system.client(key) as client:
        assert client.post(path, json={"messages": MESSAGES, "max_tokens": 1}).status_code == 200
        heavy: list[httpx.Response] = []
        sender = threading.Thread(target=lambda: heavy.append(client.post(path, json=body(WIDE))))
        sender.start()
        answer = client.post(path, json={"messages": MESSAGES, "structured_outputs": {"choice": ["north", "south"]}})
        assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"] in ("north", "south")
        sender.join()
        assert (heavy[0].status_code, "too long to compile" in heavy[0].text) == (400, True), heavy[0].text
        again = client.post(path, json=body(WIDE))
        assert (again.status_code, again.json()["error"]["param"]) == (400, "response_format")


NO_ANSWER: list[dict[str, Any]] = [{"grammar": "root ::= root"}, {"json": {"$ref": "#"}}, {"regex": r"[^\s\S]"}]


def test_what_is_refused_costs_nothing(system: System) -> None:
    key = system.deploy("refusing", "--idle-timeout", "60")
    refused: list[dict[str, Any]] = [
        {"structured_outputs": {"grammar": "root ::= ("}},
        {"structured_outputs": {"grammar": "nonsense"}},
        {"structured_outputs": {"regex": "("}},
        {"structured_outputs": {"json": '{"type": "nonsense"}'}},
        {"structured_outputs": {"json": '{"$ref": "#/nowhere"}'}},
        {"structured_outputs": {"json": '{"type": "string", "pattern": "("}'}},
        {"structured_outputs": {"structural_tag": "{}"}},
        {"structured_outputs": {"json": WIDE}},
        *({"structured_outputs": constraint} for constraint in NO_ANSWER),
        {"max_tokens": 0},
        {"max_tokens": 1 << 20},
        {"use_beam_search": True, "n": 1},
        {"logprobs": 1000},
    ]
    bodies = [
        {"model": "refusing", "prompt": "x", "max_tokens": 4, "stream": stream, **fields}
        for fields in refused
        for stream in (False, True)
    ]
    with system.client(key) as client:
        assert client.post(TEXT, json={"model": "refusing", "prompt": "x", "max_tokens": 1}).status_code == 200
        answers = [client.post(TEXT, json=body) for body in bodies]
    told = [(answer.status_code, body, answer.text) for answer, body in zip(answers, bodies, strict=True)]
    for status, body, text in told:
        assert status == 400 or (status == 200 and '{"error"' in text and "[DONE]" not in text), (status, body, text)
        assert body["stream"] or status == 400, (status, body, text)
        if body.get("structured_outputs") in NO_ANSWER and not body["stream"]:
            assert json.loads(text)["error"]["param"] == "structured_outputs", (body, text)
    for answer in answers:
        if "x-pilotlight-start" in answer.headers:  # it was at the replica
            row = system.request(answer.headers["x-request-id"])
            assert (row["input_tokens"], row["output_tokens"], float(row["cost"])) == (0, 0, 0.0), dump(row)
            assert row["finish"] in ("refused", "upstream_error"), dump(row)


def test_vectors_count_each_input_once(system: System) -> None:
    key = system.deploy("matrix-vectors", "--task", "embed", "--idle-timeout", "60")
    calls = [
        Call(VECTORS, {"model": "matrix-vectors", "input": given})
        for given in ("one", ["one", "two more", "three"], [[5, 6, 7], [8]])
    ]
    with system.client(key) as client:
        for call in calls:
            call.make(client)
    rows = rows_of(system, "matrix-vectors", len(calls))
    for call in calls:
        assert rows[call.request_id]["input_tokens"] == call.usage["prompt_tokens"] > 0
        assert (rows[call.request_id]["output_tokens"], rows[call.request_id]["count_source"]) == (0, "engine")
    assert system.engine_counters(system.until_ready("matrix-vectors"))[0] == sum(
        call.usage["prompt_tokens"] for call in calls
    )


def test_a_prompt_that_is_left_while_it_is_read_counts_as_far_as_it_was(system: System) -> None:
    """Stopped in its middle, so that the client can leave there; where the stop came too early or too late, another is
    tried.
    """
    key = system.deploy("reading", "--idle-timeout", "60", "--slots", "4", "--engine-arg", "max-num-batched-tokens=16")
    length, parts, dice, delay = 960, list[int](), random.Random(3), 0.02
    with system.client(key) as client:
        assert client.post(TEXT, json={"model": "reading", "prompt": "x", "max_tokens": 1}).status_code == 200
        _, core = processes_of(system.until_ready("reading"))
        for count in range(2, 42):
            stop = threading.Timer(delay, os.kill, (core, signal.SIGSTOP))
            stop.start()
            try:
                body = {"model": "reading", "prompt": [dice.randrange(5, 60) for _ in range(length)], "max_tokens": 1}
                with contextlib.suppress(httpx.ReadTimeout):
                    client.post(TEXT, json=body, timeout=delay + 0.5)
                stop.join()
            finally:
                os.kill(core, signal.SIGCONT)
            row = max(system.usage("reading", count), key=lambda row: row["admitted_at"])
            parts.append(row["input_tokens"])
            if 0 < parts[-1] < length:
                break
            delay *= 0.7 if parts[-1] else 1.5
    assert 0 < parts[-1] < length and parts[-1] % 16 == 0, parts


def awake(system: System, name: str, key: str) -> dict[str, Any]:
    """The replica of an endpoint that has just been called."""
    with system.client(key) as client:
        assert client.post(TEXT, json={"model": name, "prompt": "x", "max_tokens": 1}).status_code == 200
    return system.until_ready(name)


def processes_of(replica: dict[str, Any]) -> tuple[int, int]:
    """Of its API process, which leads its session, and of its engine core."""
    folder = Path(replica["address"].removeprefix("unix:")).parent
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and cwd(entry) == folder]
    [api] = {os.getsid(pid) for pid in pids}
    [core] = [pid for pid in pids if pid != api]
    return api, core


def cwd(process: Path) -> Path | None:
    try:
        return (process / "cwd").readlink()
    except OSError:
        return None


@pytest.mark.parametrize("how", ["engine core dies", "removed", "terminated"])
def test_a_stream_that_is_cut_is_billed_what_the_engine_made_and_is_no_whole_answer(system: System, how: str) -> None:
    name = how.replace(" ", "-")
    key = system.deploy(name, "--idle-timeout", "60", "--slots", "8")
    body = {"model": name, "prompt": "a long one", "n": 2, "max_tokens": LONG, "ignore_eos": True, "stream": True}
    replica = awake(system, name, key)
    api, core = processes_of(replica)
    with system.client(key) as client, client.stream("POST", TEXT, json=body) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        received = [next(lines) for _ in range(6)]
        if how == "engine core dies":
            os.kill(core, signal.SIGKILL)
        elif how == "terminated":
            os.kill(api, signal.SIGTERM)
        else:
            system.api.call("DELETE", f"/endpoints/{name}")
        received += list(lines)
        request_id = answer.headers["x-request-id"]
    assert "data: [DONE]" not in received and '"error"' in received[-1], received[-2:]
    delivered = sum(1 for line in received if '"choices"' in line)
    row = system.request(request_id, seconds=30)
    assert row["finish"] == "upstream_error" and row["count_source"] in ("journal", "engine"), dump(row)
    assert row["input_tokens"] > 0 and delivered <= row["output_tokens"] < 2 * LONG, dump(row)
    wait_until(
        lambda: (
            not any(
                known == replica["replica_id"] for known in [found["replica_id"] for found in system.replicas(name)]
            )
        ),
        30,
        "it is gone",
    )


def test_when_every_process_is_told_to_end_at_once_nothing_that_was_made_is_lost(system: System) -> None:
    """As `systemctl stop` does it. The last test here: it ends the installation, and begins it again."""
    key = system.deploy("stopped", "--idle-timeout", "60")
    body = {"model": "stopped", "prompt": "a long one", "n": 2, "max_tokens": LONG, "ignore_eos": True, "stream": True}
    pids = {*processes_of(awake(system, "stopped", key)), *system.processes()}
    with system.client(key) as client, client.stream("POST", TEXT, json=body) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        received = [next(lines) for _ in range(6)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # the first ones end the others
                os.kill(pid, signal.SIGTERM)
        received += list(lines)
        request_id = answer.headers["x-request-id"]
    assert "data: [DONE]" not in received and '"error"' in received[-1], received[-2:]
    system.up.wait(90)
    system.begin()
    system.ready()
    row = system.request(request_id, seconds=60)
    delivered = sum(1 for line in received if '"choices"' in line)
    assert row["finish"] == "upstream_error" and row["count_source"] in ("journal", "engine"), dump(row)
    assert row["input_tokens"] > 0 and delivered <= row["output_tokens"] < 2 * LONG, dump(row)
