"""`/v1/responses` and `/v1/messages` through their own SDKs at a real engine: what they tell, what the row has; and
errors as they read them.
"""

from __future__ import annotations

import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from transformers import AutoTokenizer

from tests.embedding_models import make_late_interaction, make_reranker
from tests.integration.system import System

QUESTION = "What is Pilotlight?"


@pytest.fixture(scope="module")
def key(system: System) -> str:
    return system.deploy("apis")


def test_both_apis_are_served_and_told_as_they_are_billed(system: System, key: str) -> None:
    """One test: they share one wake."""
    context = ssl.create_default_context(cafile=str(system.paths.ca_cert))
    url = f"{system.api.url}/e/apis"
    ours = openai.OpenAI(base_url=f"{url}/v1", api_key=key, http_client=httpx2.Client(verify=context), max_retries=0)
    theirs = anthropic.Anthropic(base_url=url, api_key=key, http_client=httpx2.Client(verify=context), max_retries=0)
    told: dict[str, tuple[int, int]] = {}

    answer = ours.responses.create(model="apis", input=QUESTION, max_output_tokens=8)
    assert answer.usage is not None and answer.usage.output_tokens > 0 and answer.output_text
    told[answer.id.removeprefix("resp_")] = (answer.usage.input_tokens, answer.usage.output_tokens)

    with ours.responses.stream(
        model="apis", input=[{"role": "user", "content": QUESTION}], max_output_tokens=8
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert (
        kinds[0] == "response.created" and kinds[-1] == "response.completed" and "response.output_text.delta" in kinds
    )
    assert final.usage is not None
    told[final.id.removeprefix("resp_")] = (final.usage.input_tokens, final.usage.output_tokens)

    raw = theirs.messages.with_raw_response.create(
        model="apis", max_tokens=8, messages=[{"role": "user", "content": QUESTION}]
    )
    message = raw.parse()
    read = message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)
    told[raw.headers["x-request-id"]] = (read, message.usage.output_tokens)

    with theirs.messages.stream(
        model="apis", max_tokens=8, messages=[{"role": "user", "content": QUESTION}]
    ) as streamed:
        assert "".join(streamed.text_stream)
        last = streamed.get_final_message()
        identity = streamed.response.headers["x-request-id"]
    told[identity] = (last.usage.input_tokens + (last.usage.cache_read_input_tokens or 0), last.usage.output_tokens)

    with system.client(key) as client:
        bare = client.post("/e/apis/v1/responses", json={"input": QUESTION, "max_output_tokens": 2})
    assert bare.json()["usage"]["output_tokens"] == 2 and "per_turn" not in bare.text, "strict clients choke on it"

    counted = theirs.messages.count_tokens(model="apis", messages=[{"role": "user", "content": QUESTION}])
    assert counted.input_tokens == read

    for request_id, tokens in told.items():
        row = system.request(request_id)
        assert (row["input_tokens"], row["output_tokens"]) == tokens, (request_id, row)
        assert (row["finish"], row["count_source"]) == ("complete", "engine")

    with pytest.raises(openai.BadRequestError) as long:
        ours.chat.completions.create(model="apis", messages=[{"role": "user", "content": "word " * 9000}])
    assert (long.value.code, long.value.type) == ("context_length_exceeded", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as tools:
        ours.chat.completions.create(
            model="apis",
            messages=[{"role": "user", "content": "x"}],
            tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
        )
    assert tools.value.param == "tools" and "--" not in tools.value.message
    with pytest.raises(anthropic.BadRequestError):
        theirs.messages.create(
            model="apis", max_tokens=8, extra_body={"temperature": 9.0}, messages=[{"role": "user", "content": "x"}]
        )


ASKED = {"prompt": "What is", "max_tokens": 12, "temperature": 0, "logprobs": 3}
OTHERS: list[dict[str, Any]] = [  # each a field that takes part in how a whole batch's tokens are chosen or told
    {"logprobs": 20},
    {"bad_words": ["a", "the"]},
    {"allowed_token_ids": [5, 6, 7]},
    {"logit_bias": {"5": 100}},
    {"repetition_penalty": 9, "frequency_penalty": 2, "presence_penalty": -2},
    {"temperature": 2, "min_p": 1, "top_k": 1, "top_p": 0.1, "seed": -5},
    {"min_tokens": 40, "stop_token_ids": [5, 6]},
    {"response_format": {"type": "json_object"}},
    {"repetition_detection": {"max_pattern_size": 3, "min_pattern_size": 1, "min_count": 2}},
    {"n": 3, "temperature": 1},
    {"watermarking": True, "length_penalty": -5},
]


def test_what_others_ask_for_changes_no_answer_beside_them(system: System, key: str) -> None:
    """All in one batch of the engine's, of several keys for all it knows."""

    def said(client: httpx.Client) -> tuple[str, list[list[str]]]:
        [choice] = client.post("/e/apis/v1/completions", json=ASKED).json()["choices"]
        return choice["text"], [sorted(each) for each in choice["logprobs"]["top_logprobs"]]

    with system.client(key) as client, ThreadPoolExecutor(len(OTHERS)) as threads:
        alone = said(client)
        beside = [
            threads.submit(
                client.post,
                "/e/apis/v1/completions",
                json={"prompt": "A", "max_tokens": 60, "ignore_eos": True} | other,
            )
            for other in OTHERS
        ]
        together = [said(client) for _ in range(4)]
        assert [answer.result().status_code for answer in beside] == [200] * len(OTHERS)
        refused = client.post("/e/apis/v1/chat/completions", json={"logprob_token_ids": [5]})
    assert together == [alone] * 4
    assert refused.json()["error"]["param"] == "logprob_token_ids", "it is the one that did"


LEFT = {
    "/e/apis/v1/responses": {"input": QUESTION, "max_output_tokens": 900, "ignore_eos": True, "stream": True},
    "/e/apis/v1/messages": {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 900, "stream": True},
    "/e/apis/v1/chat/completions": {
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 900,
        "ignore_eos": True,
        "stream": True,
    },
}
LONG = "Say it again. " * 60  # tokens enough to fill a block of the engine's cache


def test_who_leaves_in_the_middle_pays_what_was_made_by_the_journal(system: System, key: str) -> None:
    left: dict[str, int] = {}
    with system.client(key) as client:
        for path, body in LEFT.items():
            with client.stream("POST", path, json=body) as answer:
                deltas = 0
                for line in answer.iter_lines():
                    deltas += line.startswith("data: ") and "delta" in line
                    if deltas == 6:
                        break
                left[answer.headers["x-request-id"]] = deltas
    for request_id, deltas in left.items():
        row = system.request(request_id)
        assert row["count_source"] in ("journal", "engine") and row["input_tokens"] > 0, row
        assert row["output_tokens"] >= 1, (deltas, row)


def test_cached_tokens_are_told_as_they_are_billed(system: System, key: str) -> None:
    told: dict[str, int] = {}
    with system.client(key) as client:
        for _ in range(2):
            answer = client.post(
                "/e/apis/v1/chat/completions", json={"messages": [{"role": "user", "content": LONG}], "max_tokens": 1}
            )
            told[answer.headers["x-request-id"]] = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
            answer = client.post("/e/apis/v1/responses", json={"input": LONG, "max_output_tokens": 1})
            told[answer.headers["x-request-id"]] = answer.json()["usage"]["input_tokens_details"]["cached_tokens"]
            body = {"messages": [{"role": "user", "content": LONG}], "max_tokens": 1}
            answer = client.post("/e/apis/v1/messages", json=body)
            told[answer.headers["x-request-id"]] = answer.json()["usage"].get("cache_read_input_tokens") or 0
    assert max(told.values()) > 0, "nothing was cached: this test would show nothing"
    for request_id, cached in told.items():
        assert system.request(request_id)["cached_tokens"] == cached, request_id


QUERY, DOCUMENTS = "Who serves models?", ["Pilotlight serves models.", "A cat sleeps.", "What serves models?"]


@pytest.mark.parametrize("kind", ["cross", "late"])
def test_a_reranker_wakes_scores_and_is_billed_for_what_it_read(
    system: System, key: str, tmp_path: Path, kind: str
) -> None:
    """A cross-encoder reads each pair at once, and its task is found in its files; late interaction reads each text
    once. The second start has a canary to agree with.
    """
    make, options = (make_reranker, ()) if kind == "cross" else (make_late_interaction, ("--task", "score"))
    folder, name = make(tmp_path / kind), f"reranker-{kind}"
    reranker = system.deploy(name, *options, model=folder)
    encode = AutoTokenizer.from_pretrained(str(folder))
    read = [encode(QUERY, document) for document in DOCUMENTS] if kind == "cross" else map(encode, [QUERY, *DOCUMENTS])
    tokens = sum(len(each.input_ids) for each in read)
    rerank = {"query": QUERY, "documents": DOCUMENTS}
    scores: list[list[float]] = []
    usage: dict[str, dict[str, int]] = {}
    with system.client(reranker) as client:
        for number in range(2):
            answer = client.post(f"/e/{name}/v1/rerank", json=rerank)
            assert answer.status_code == 200, answer.text + system.failure(name)
            results = sorted(answer.json()["results"], key=by_index)
            scores.append([each["relevance_score"] for each in results])
            usage[answer.headers["x-request-id"]] = answer.json()["usage"]
            if number == 0:
                counted = system.engine_counters(system.until_ready(name))
                assert counted == (tokens, 0), "the engine read this, and a canary that is nobody's"
                system.to_zero(name)
        answer = client.post(f"/e/{name}/v1/score", json={"text_1": QUERY, "text_2": DOCUMENTS})
        scores.append([each["score"] for each in answer.json()["data"]])
        usage[answer.headers["x-request-id"]] = answer.json()["usage"]
        wrong = client.post(f"/e/{name}/v1/rerank", json={**rerank, "rank_fields": ["a"]})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "rank_fields")
        other = client.post(f"/e/{name}/v1/embeddings", json={"input": "a"})
        assert other.status_code == 400 and "needs 'embed'" in other.json()["error"]["message"]
    assert len(set(scores[0])) == len(DOCUMENTS), "texts differ, and so do scores"
    assert all(each == pytest.approx(scores[0], abs=1e-4) for each in scores)
    for request_id, told in usage.items():
        row = system.request(request_id)
        assert (row["input_tokens"], row["output_tokens"], row["count_source"]) == (tokens, 0, "engine"), row
        assert told["prompt_tokens"] == told["total_tokens"] == tokens
    with system.client(key) as client:
        refused = client.post("/e/apis/v1/rerank", json=rerank)
    assert refused.status_code == 400 and "needs 'score' or 'embed'" in refused.json()["error"]["message"]


def by_index(result: dict[str, Any]) -> int:
    return int(result["index"])


def test_reranking_is_told_as_it_is_billed(system: System) -> None:
    key = system.deploy("apis-vectors", "--task", "embed")
    texts = DOCUMENTS
    told: dict[str, int] = {}
    with system.client(key) as client:
        answer = client.post(
            "/e/apis-vectors/v1/rerank", json={"query": "Who serves models?", "documents": texts, "top_n": 2}
        )
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["results"]) == 2
        told[answer.headers["x-request-id"]] = answer.json()["usage"]["prompt_tokens"]
        answer = client.post("/e/apis-vectors/v1/score", json={"text_1": texts[0], "text_2": texts})
        assert answer.json()["data"][0]["score"] > 0.99, "a text is nearest to itself"
        told[answer.headers["x-request-id"]] = answer.json()["usage"]["prompt_tokens"]
    for request_id, tokens in told.items():
        row = system.request(request_id)
        assert (row["input_tokens"], row["output_tokens"], row["count_source"]) == (tokens, 0, "engine"), row
