"""`python -m router` as operators run it: over TLS, with real processes, killed in every way. Behind it are the
fakes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator

import httpx
import openai
import pytest

from activator.wire import Depths, ReplicaRow
from tests.fakes import SSE_HEAD, Die, FakeReplica, FakeRequest, chunk, event
from tests.integration.router_site import is_free, site, stopped
from tests.router_world import endpoint_row, until


async def test_the_openai_client_through_a_cold_start_and_a_death() -> None:
    async with site() as s:
        process = await s.start()
        await s.ready()
        client = s.openai()
        asking = asyncio.ensure_future(
            client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True)
        )
        await s.activator.until(lambda: s.activator.demand == {"r1": 1})
        s.show()
        stream = await asking
        assert "".join([part.choices[0].delta.content or "" async for part in stream]) == "w0 w1 w2 "
        assert stream.response.headers["x-pilotlight-start"] == "cold"

        async def dies(_: FakeRequest) -> AsyncIterator[bytes]:
            yield SSE_HEAD + chunk(event({"choices": [{"index": 0, "delta": {"content": "a"}}]}))
            await asyncio.sleep(0.05)
            raise Die

        s.replica.answer = dies
        stream = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        with pytest.raises(openai.APIError, match="replica"):
            [part async for part in stream]
        assert [model.id async for model in client.models.list()] == ["tiny"]
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="other", messages=[{"role": "user", "content": "hi"}])
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="pl_no").models.list()
        async with httpx.AsyncClient() as http:
            assert (
                "pilotlight_router_cold_starts_total"
                in (await http.get(f"http://127.0.0.1:{s.metrics_port}/metrics")).text
            )
        assert await stopped(process) == 0
        assert sorted(record["kind"] for record in s.records()) == ["end", "end", "open", "open"]


async def test_sigterm_finishes_what_runs_and_serves_what_is_held() -> None:
    async with site() as s:
        process = await s.start()
        await s.ready()
        client = s.openai()
        held = asyncio.ensure_future(
            client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}])
        )
        await s.activator.until(lambda: s.activator.demand == {"r1": 1})
        process.terminate()
        async with asyncio.timeout(60):
            while True:  # until nobody listens any more
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", s.port)
                except OSError:
                    break
                writer.close()
                await asyncio.sleep(0.02)
        s.show()
        assert (await held).choices[0].message.content == "w0 w1 w2 "
        assert await process.wait() == 0


async def test_sigterm_under_load_loses_nothing() -> None:
    async with site() as s:
        s.replica.pause = 0.05  # seconds between tokens
        s.activator.endpoints["tiny"] = endpoint_row(max_held=100)
        process = await s.start()
        await s.ready()
        async with s.http() as http:
            headers = {"authorization": f"Bearer {s.key}"}
            asked = [
                asyncio.ensure_future(
                    http.post(
                        "/e/tiny/v1/chat/completions",
                        json={"messages": [{"role": "user", "content": "hi"}], "stream": stream},
                        headers=headers,
                    )
                )
                for stream in (True, False) * 20
            ]
            await s.activator.until(lambda: s.activator.demand == {"r1": 40})
            s.show(max_held=100)
            await s.replica.until(lambda: s.replica.in_flight == 8)  # its slots; the rest is held
            process.terminate()
            for reply in await asyncio.gather(*asked):
                assert reply.status_code == 200
                assert "w2" in reply.text
        assert await process.wait() == 0
        ends = [record for record in s.records() if record["kind"] == "end"]
        assert len(ends) == 40
        assert {(end["finish"], end["count_source"], end["output_tokens"]) for end in ends} == {
            ("complete", "engine", 3)
        }
        assert not s.replica.aborted


async def test_a_client_that_leaves_frees_the_engine() -> None:
    """At once: the whole answer would take minutes."""
    async with site() as s:
        s.replica.pause, s.replica.tokens = 0.02, 10_000
        process = await s.start()
        await s.ready()
        s.show()
        stream = await s.openai().chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        async for part in stream:
            if part.choices[0].delta.content:
                break
        await stream.close()
        await s.replica.until(lambda: len(s.replica.aborted) == 1 and s.replica.in_flight == 0)
        assert await stopped(process) == 0
        [end] = [record for record in s.records() if record["kind"] == "end"]
        assert (end["finish"], end["count_source"]) == ("client_disconnect", "relayed")
        assert 1 <= end["output_tokens"] <= s.replica.emitted[end["event_id"]]


async def test_an_endpoint_by_its_host_and_by_model_over_tls() -> None:
    async with site() as s:
        process = await s.start(PILOTLIGHT_ROUTER__DOMAIN="llm.test")
        await s.ready()
        s.show()
        import ssl

        context = ssl.create_default_context(cafile=str(s.paths.ca_cert))
        asked = {"messages": [{"role": "user", "content": "hi"}]}
        body = json.dumps(asked).encode()
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", s.port, ssl=context, server_hostname="tiny.llm.test"
        )  # its name is in the certificate
        writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: tiny.llm.test:{s.port}\r\nauthorization: Bearer {s.key}\r\n"
            f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        async with s.http() as http:
            headers = {"authorization": f"Bearer {s.key}"}
            assert (
                await http.post("/v1/chat/completions", json={**asked, "model": "tiny"}, headers=headers)
            ).status_code == 200
            assert (await http.post("/v1/chat/completions", json=asked, headers=headers)).json()["error"][
                "param"
            ] == "model"
            models = await http.get("/v1/models", headers={**headers, "host": "tiny.llm.test"})
            assert [model["id"] for model in models.json()["data"]] == ["tiny"]
        assert {request.fields["model"] for request in s.replica.requests} == {"tiny"}
        assert await stopped(process) == 0


async def test_the_openai_client_asks_for_embeddings() -> None:
    async with site() as s:
        process = await s.start()
        await s.ready()
        s.show(task="embed")
        answer = await s.openai().embeddings.create(model="tiny", input=["a", "b"], encoding_format="float")
        assert answer.data[0].embedding == [0.5, -0.5]
        assert await stopped(process) == 0
        [end] = [record for record in s.records() if record["kind"] == "end"]
        assert (end["input_tokens"], end["output_tokens"], end["count_source"]) == (5, 0, "engine")


async def test_sigterm_tells_what_cannot_be_finished() -> None:
    async with site() as s:
        process = await s.start(PILOTLIGHT_ROUTER__DRAIN_SECONDS="1")
        await s.ready()
        client = s.openai()
        held = asyncio.ensure_future(
            client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}])
        )
        await s.activator.until(lambda: s.activator.demand == {"r1": 1})
        process.terminate()
        with pytest.raises(openai.InternalServerError, match="shutting down"):
            await held
        assert await process.wait() == 0
        [end] = [record for record in s.records() if record["kind"] == "end"]
        assert (end["status"], end["finish"]) == (503, "timeout")


async def test_a_taken_port_is_said_in_one_line() -> None:
    async with site() as s:
        with socket.create_server(("127.0.0.1", s.port)):
            process = await s.start()
            _, said = await process.communicate()
        assert process.returncode == 1
        [line] = said.decode().splitlines()
        assert f"port {s.port} on 127.0.0.1 is taken" in line


async def test_a_bad_setting_is_said_in_one_line() -> None:
    async with site() as s:
        process = await s.start(PILOTLIGHT_ROUTER__WORKERS="none")
        _, said = await process.communicate()
        assert process.returncode == 1
        assert len(said.decode().splitlines()) == 1


async def test_workers_are_replaced_and_end_with_their_parent() -> None:
    async with site() as s:
        process = await s.start(PILOTLIGHT_ROUTER__WORKERS="2")
        await s.ready(workers=2)
        s.show()
        workers = {frame.worker_id: frame.pid for frame in s.ledger.heard if frame.kind == "worker"}  # type: ignore[attr-defined]
        assert len(workers) == 2
        os.kill(next(iter(workers.values())), signal.SIGKILL)
        await s.ledger.until(lambda: len(s.ledger.workers) == 3)
        await s.ready(workers=2)
        async with s.http() as http:
            body = {"messages": [{"role": "user", "content": "hi"}]}
            for _ in range(4):
                reply = await http.post(
                    "/e/tiny/v1/chat/completions", json=body, headers={"authorization": f"Bearer {s.key}"}
                )
                assert reply.status_code == 200
        process.kill()
        await process.wait()
        await s.ledger.until(lambda: not s.ledger.streams)
        await until(lambda: is_free(s.port))


async def test_two_workers_send_to_the_replica_that_others_have_less_in() -> None:
    async with site() as s:
        other = await FakeReplica(f"unix:{s.paths.run}/q.sock").start()
        process = await s.start(PILOTLIGHT_ROUTER__WORKERS="2")
        await s.ready(workers=2)
        rows = [
            ReplicaRow(replica_id=name, address=replica.address, slots=8)
            for name, replica in (("p", s.replica), ("q", other))
        ]
        row = endpoint_row(*rows)
        s.activator.push(row)
        async with s.http() as http:
            headers, body = (
                {"authorization": f"Bearer {s.key}", "connection": "close"},
                {"messages": [{"role": "user", "content": "hi"}]},
            )
            for deep, chosen, shunned in (("p", other, s.replica), ("q", s.replica, other)):
                before = len(chosen.requests), len(shunned.requests)
                s.activator.tell(Depths(others={name: 20 * (name == deep) for name in "pq"}, routers=2))
                s.activator.push(row)  # frames come in order: whoever has this one has the other
                at = s.activator.sequence
                await s.activator.until(lambda at=at: s.activator.acknowledging(at) == 2)  # type: ignore[misc]
                for _ in range(8):  # a connection each: whichever worker takes it
                    assert (
                        await http.post("/e/tiny/v1/chat/completions", json=body, headers=headers)
                    ).status_code == 200
                assert (len(chosen.requests), len(shunned.requests)) == (before[0] + 8, before[1])
        assert await stopped(process) == 0
        await other.stop()


async def test_workers_drain_with_their_parent() -> None:
    async with site() as s:
        process = await s.start(PILOTLIGHT_ROUTER__WORKERS="2")
        await s.ready(workers=2)
        assert await stopped(process) == 0


async def test_kill_9_leaves_the_opened_on_disk() -> None:
    async with site() as s:
        process = await s.start()
        await s.ready()
        client = s.openai()
        held = asyncio.ensure_future(
            client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}])
        )
        await s.activator.until(lambda: s.activator.demand == {"r1": 1})
        process.kill()
        await process.wait()
        with pytest.raises(openai.APIConnectionError):
            await held
        [opened] = s.records()
        assert (opened["kind"], opened["endpoint_id"], opened["key_id"]) == ("open", "e1", "k")
