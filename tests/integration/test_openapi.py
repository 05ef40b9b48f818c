"""`/openapi.json` is true: schemathesis makes calls of it, allowed and forbidden ones, and finds no answer that it does
not name.

The router is the real one; the engine is a stand-in, which answers in each API's form or refuses. schemathesis has an
environment of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pilotlight.cli.bench.peers import python_with
from router.admission.routes import ROUTES
from tests.fakes import SSE_HEAD, FakeRequest, chunk, json_answer
from tests.router_world import KEY, OTHER_KEY, endpoint_row, world

pytestmark = pytest.mark.timeout(900)  # the first time here its environment is installed

SCHEMATHESIS = "schemathesis==4.32.5"
EXAMPLES = 5  # an operation
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,"
    "negative_data_rejection,unsupported_method,allow_header_conformance,ignored_auth"
)
WHOLE: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"object": "list", "data": [], "usage": {}},
    "/rerank": {"id": "score-1", "results": [], "usage": {}},
    "/score": {"id": "score-1", "data": [], "usage": {}},
    "/v1/responses": {"id": "resp_1", "object": "response", "output": [], "status": "completed"},
    "/v1/messages": {"id": "msg_1", "type": "message", "role": "assistant", "content": []},
    "/v1/messages/count_tokens": {"input_tokens": 1},
}
CHAT: dict[str, Any] = {"id": "c", "object": "chat.completion", "choices": [], "usage": {}}
LASTS = {
    "/v1/responses": b"event: response.completed\ndata: {}\n: pilotlight-usage 5;2;3\n\n",
    "/v1/messages": b"event: message_stop\ndata: {}\n: pilotlight-usage 5;2;3\n\n",
}


def engine() -> Any:
    numbers = itertools.count()

    async def answer(request: FakeRequest) -> AsyncIterator[bytes]:
        if next(numbers) % 5 == 4:
            yield json_answer(
                400,
                json.dumps(
                    {"error": {"message": "no", "type": "BadRequestError", "param": "seed", "code": 400}}
                ).encode(),
            )
        elif request.fields.get("stream"):
            last = LASTS.get(request.path, b": pilotlight-usage 5;2;3\ndata: [DONE]\n\n")
            yield SSE_HEAD + chunk(b"data: {}\n\n") + chunk(last) + b"0\r\n\r\n"
        else:
            yield json_answer(200, json.dumps(WHOLE.get(request.path, CHAT)).encode(), "x-pilotlight-usage: 5;2;3\r\n")

    return answer


@pytest.mark.parametrize(
    ("name", "key", "paths"),
    [
        ("tiny", KEY, "^/e/.*(chat|completions|responses|messages|models|health)|^/[a-z.]+$|^/v1/models"),
        ("vectors", OTHER_KEY, "embeddings|/e/.*(rerank|score)"),
    ],
    ids=["generate", "embed"],
)
async def test_no_answer_is_undeclared(tmp_path: Path, name: str, key: str, paths: str) -> None:
    """Of routes that are served under two names the short one is left out, but for those of vectors."""
    python = await asyncio.to_thread(python_with, SCHEMATHESIS)
    async with world() as w:
        w.show(endpoint_row(w.row(replica_id="p2"), name="vectors", endpoint_id="e2", revision_id="r2", task="embed"))
        w.replica.answer = engine()
        config = tmp_path / "schemathesis.toml"
        config.write_text(f'[parameters]\nendpoint = "{name}"\nmodel = "{name}"\n')
        run = await asyncio.create_subprocess_exec(
            *(
                str(python),
                "-m",
                "schemathesis.cli",
                "--config-file",
                str(config),
                "run",
                f"http://127.0.0.1:{w.port}/openapi.json",
            ),
            *(
                "--header",
                f"Authorization: Bearer {key}",
                "--checks",
                CHECKS,
                "--max-examples",
                str(EXAMPLES),
                "--seed",
                "1",
                "--include-path-regex",
                paths,
            ),
            *("--phases", "coverage,fuzzing", "--no-color", "--request-timeout", "10", "--continue-on-failure"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await run.communicate()
        assert run.returncode == 0, output.decode()[-6000:]
        served = {request.path for request in w.replica.requests}
        assert served >= {route.path for route in ROUTES.values() if route.pools == (name == "vectors")}
