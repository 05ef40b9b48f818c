"""Metrics as Prometheus scrapes them (its text format, version 0.0.4): families of numbers, written and served.

A process keeps numbers, not metric objects, for a warm request has no time for them. They are read when somebody
scrapes, in slices, so that nothing else of the process waits. Every process serves its own: the router's workers on
loopback ports, the others on Unix sockets in the run folder. The first worker asks those and passes on what they say.

The failures to survive: a scraper that says nothing or never reads, a process that is away, and a port that is taken.
The first is cut off; of the second the rest is told all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import structlog

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
SLICE = 200  # lines written without a pause: less than a millisecond
PATIENCE_SECONDS = 5.0  # for a scraper to ask, or to read
ASK_SECONDS = 1.0  # for another process of ours to answer
LONGEST_REQUEST = 16 << 10  # bytes
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\nconnection: close\r\n\r\n"

log = structlog.get_logger()


class Histogram:
    """How often something took how long."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds


Kind = Literal["counter", "gauge", "histogram"]
Sample = tuple[tuple[str, ...], float | Histogram]  # values of the labels, and the number


class Family:
    """One metric. `name` is without the `_total` that a counter has; `samples` is read once, when it is written."""

    def __init__(
        self,
        name: str,
        kind: Kind,
        documentation: str,
        labels: tuple[str, ...] = (),
        samples: Iterable[Sample] = (),
    ) -> None:
        self.name = name
        self.type = kind
        self.documentation = documentation
        self.labels = labels
        self.samples = samples

    def lines(self) -> Iterator[str]:
        name = self.name + "_total" if self.type == "counter" else self.name
        yield f"# HELP {name} {self.documentation}\n# TYPE {name} {self.type}\n"
        order = sorted(range(len(self.labels)), key=self.labels.__getitem__)
        for values, number in self.samples:
            labels = ",".join([f'{self.labels[index]}="{_escaped(values[index])}"' for index in order])
            if isinstance(number, Histogram):
                yield from _of(name, labels, number)
            else:
                yield f"{name}{{{labels}}} {float(number)}\n" if labels else f"{name} {float(number)}\n"


def _of(name: str, labels: str, histogram: Histogram) -> Iterator[str]:
    below, before = 0, labels + "," if labels else ""
    for edge, count in zip((*SECONDS, "+Inf"), histogram.counts, strict=True):
        below += count
        yield f'{name}_bucket{{{before}le="{edge}"}} {float(below)}\n'
    shown = f"{{{labels}}}" if labels else ""
    yield f"{name}_count{shown} {float(below)}\n{name}_sum{shown} {histogram.total}\n"


def _escaped(value: str) -> str:
    return (
        value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        if "\\" in value or '"' in value or "\n" in value
        else value
    )


def text(families: Iterable[Family]) -> str:
    return "".join(line for family in families for line in family.lines())


async def slices(families: Iterable[Family]) -> AsyncIterator[bytes]:
    """The text, in pieces; what else the process has to do goes on between them."""
    lines: list[str] = []
    for family in families:
        for line in family.lines():
            lines.append(line)
            if len(lines) >= SLICE:
                yield "".join(lines).encode()
                lines.clear()
                await asyncio.sleep(0)
    yield "".join(lines).encode()


class Exposition:
    """Answers whoever asks with the families there are then, and with what the processes at `others` (sockets) say."""

    def __init__(self, families: Callable[[], Iterable[Family]], *, others: Iterable[Path] = ()) -> None:
        self._families, self._others = families, tuple(others)
        self._server: asyncio.Server | None = None

    async def on_port(self, port: int) -> None:
        """On the loopback. Where the port is taken it is said so, and there are no metrics."""
        try:
            self._server = await asyncio.start_server(self._answer, "127.0.0.1", port, limit=LONGEST_REQUEST)
        except OSError as error:
            log.error("no metrics: their port is taken", action="metrics", port=port, reason=str(error))

    async def on_socket(self, path: Path) -> None:
        """In the run folder, which only its owner may enter."""
        try:
            path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._answer, path, limit=LONGEST_REQUEST)
        except OSError as error:
            log.error("no metrics: their socket cannot be made", action="metrics", path=str(path), reason=str(error))

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD)
            async for piece in slices(self._families()):
                await _write(writer, piece)
            for path in self._others:
                await _write(writer, await ask(path))
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # it left, said nothing, or does not read
        finally:
            writer.close()


async def _write(writer: asyncio.StreamWriter, piece: bytes) -> None:
    writer.write(piece)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await writer.drain()


async def ask(path: Path) -> bytes:
    """What the process behind this socket tells; nothing where it is away, or too slow."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
            with contextlib.closing(writer):
                writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
                return (await reader.read()).partition(b"\r\n\r\n")[2]
    except OSError:
        return b""
