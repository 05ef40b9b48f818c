"""Frames arrive whole and typed; a peer that lies, dies or never reads costs its own connection and nothing else."""

from __future__ import annotations

import asyncio
import stat
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError
from structlog.testing import capture_logs

from pilotlight import frames
from pilotlight.frames import AddressError, Frame, FrameError, FrameStream, connect, serve, split


class Ping(Frame):
    kind: Literal["ping"] = "ping"
    number: int


class Text(Frame):
    kind: Literal["text"] = "text"
    text: str
    seconds: float = 0.0


Any_ = Annotated[Ping | Text, Field(discriminator="kind")]
Serve = Callable[[Callable[[FrameStream[Any]], Awaitable[None]]], Awaitable[None]]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pl-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def address(folder: Path) -> str:
    return f"unix:{folder / 'a.sock'}"


@pytest.fixture
async def listen(address: str) -> AsyncIterator[Serve]:
    servers = []

    async def begin(on_peer: Callable[[FrameStream[Any]], Awaitable[None]]) -> None:
        servers.append(await serve(address, Any_, on_peer))

    yield begin
    for server in servers:
        server.close()


async def echo(stream: FrameStream[Any]) -> None:
    async for frame in stream:
        stream.send(frame, frame)


async def test_frames_go_both_ways_in_order(listen: Serve, address: str) -> None:
    await listen(echo)
    stream = await connect(address, Any_)
    stream.send(Ping(number=1), Text(text="two\nlines, ünïcode"))
    assert [await stream.receive() for _ in range(4)] == [Ping(number=1)] * 2 + [Text(text="two\nlines, ünïcode")] * 2
    stream.close()


async def test_the_socket_is_its_owners_and_replaces_an_old_one(listen: Serve, address: str) -> None:
    await listen(echo)
    await listen(echo)
    assert stat.S_IMODE(Path(address[5:]).stat().st_mode) == 0o600
    stream = await connect(address, Any_)
    stream.send(Ping(number=1))
    assert await stream.receive() == Ping(number=1)
    stream.close()


@pytest.mark.parametrize("line", [b"nonsense\n", b'{"kind":"ping"}\n', b'{"number":1}\n', b"\xff\n"])
async def test_nonsense_ends_that_connection_only(listen: Serve, address: str, line: bytes) -> None:
    await listen(echo)
    good = await connect(address, Any_)
    reader, writer = await asyncio.open_unix_connection(address[5:])
    with capture_logs() as logs:
        writer.write(line)
        assert await reader.read() == b""
    writer.close()
    assert [entry["action"] for entry in logs] == ["bad_frame"]
    assert "nonsense" not in str(logs)  # what was sent stays out of logs
    good.send(Ping(number=1))
    assert await good.receive() == Ping(number=1)
    good.close()


async def test_what_only_a_newer_release_knows_is_passed_over(listen: Serve, address: str) -> None:
    await listen(echo)
    reader, writer = await asyncio.open_unix_connection(address[5:])
    writer.write(b'{"kind":"pong","number":1}\n{"kind":"ping","number":2,"later":{"x":[1]}}\n')
    assert await reader.readuntil(b"\n") == Ping(number=2).model_dump_json().encode() + b"\n"
    writer.close()


def test_a_peer_of_another_protocol_is_refused_by_name() -> None:
    frames.check_protocol(frames.PROTOCOL, "router r")
    frames.check_protocol(frames.OLDEST_PROTOCOL, "router r")
    with pytest.raises(FrameError, match=f"router r speaks protocol {frames.PROTOCOL + 1}"):
        frames.check_protocol(frames.PROTOCOL + 1, "router r")
    with pytest.raises(FrameError, match="upgrade one release at a time"):
        frames.check_protocol(frames.OLDEST_PROTOCOL - 1, "router r")


async def test_a_line_without_end_is_a_frame_error(
    monkeypatch: pytest.MonkeyPatch, listen: Serve, address: str
) -> None:
    monkeypatch.setattr(frames, "LONGEST_FRAME", 1000)
    met: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def peer(stream: FrameStream[Any]) -> None:
        try:
            await stream.receive()
        except FrameError as error:
            met.set_result(error)

    await listen(peer)
    _, writer = await asyncio.open_unix_connection(address[5:])
    writer.write(b"x" * 3000)
    assert "longer than 1000" in str(await met)
    writer.close()


async def test_a_peer_that_dies_within_a_line_has_left(listen: Serve, address: str) -> None:
    got: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def peer(stream: FrameStream[Any]) -> None:
        got.set_result([frame async for frame in stream])

    await listen(peer)
    _, writer = await asyncio.open_unix_connection(address[5:])
    writer.write(b'{"kind":"ping","number":1}\n{"kind":"pi')
    writer.close()
    assert await got == [Ping(number=1)]


async def test_a_peer_that_never_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch, listen: Serve, address: str) -> None:
    monkeypatch.setattr(frames, "MOST_UNSENT", 1 << 20)
    ended = asyncio.Event()

    async def peer(stream: FrameStream[Any]) -> None:
        for _ in range(100):
            stream.send(Text(text="x" * (1 << 17)))
        assert await stream.receive() is None
        ended.set()

    await listen(peer)
    _, writer = await asyncio.open_unix_connection(address[5:])
    with capture_logs() as logs:
        await ended.wait()
    assert [entry["action"] for entry in logs] == ["peer_stuck"]
    writer.close()


def test_a_mistake_is_the_senders() -> None:
    with pytest.raises(ValidationError):
        Ping(number=1, nubmer=2)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        Text(text="", seconds=float("inf"))  # JSON has no such number: the receiver would see null


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("unix:/run/a.sock", ("unix", "/run/a.sock", 0)),
        ("tcp:node7:80", ("tcp", "node7", 80)),
        ("tcp:10.0.0.1:65535", ("tcp", "10.0.0.1", 65535)),
        ("tcp:[::1]:80", ("tcp", "::1", 80)),
    ],
)
def test_addresses(address: str, parts: tuple[str, str, int]) -> None:
    assert split(address) == parts


@pytest.mark.parametrize(
    "address", ["", "unix:a.sock", "tcp:80", "tcp:a:", "tcp:a:65536", "tcp:a:²", "http://a:80", "unix:/" + "x" * 107]
)
def test_bad_addresses(address: str) -> None:
    with pytest.raises(AddressError):
        split(address)
