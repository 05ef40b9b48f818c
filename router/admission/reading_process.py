"""`python -m router.admission.reading_process` reads large bodies for a router's worker, so that nobody's tokens wait
meanwhile. Step 3.

Python reads a body of megabytes in tenths of a second, holding its lock all the time. A thread would hold the loop up
as well. So a process beside the worker does it, one body after the other. It unpacks, checks, and answers what the
router needs to know of it. It has no secrets, sees no keys, and ends with its worker. The failure to survive is a body
built to hurt: its worst is this process's end.
"""

from __future__ import annotations

import json
import signal
import socket
import struct
import sys
from dataclasses import asdict
from typing import Any

from router.admission import encoding, openai
from router.admission.fields import Wants
from router.admission.openai import Asked
from router.admission.routes import ROUTES, Route
from router.errors import BadRequest, BodyTooLarge, RouterError

SIZES = struct.Struct("!II")  # bytes of the head, which is JSON, and of the body behind it
BY_PATH = {route.path: route for route in ROUTES.values()}
REFUSED = (BadRequest, BodyTooLarge)
ERRORS = {kind.__name__: kind for kind in REFUSED}


def question(route: Route, packed: str, most: int) -> dict[str, Any]:
    """The head of a body that is to be read. `packed`: its encoding; `most`: bytes it may have once it is unpacked."""
    return {"route": route.path, "packed": packed, "most": most}


def framed(head: dict[str, Any], body: bytes) -> bytes:
    """What goes before the body."""
    said = json.dumps(head).encode()
    return SIZES.pack(len(said), len(body)) + said


def read(route: Route, packed: str, most: int, body: bytes) -> tuple[Asked, bytes]:
    """What it asks for, and the body, unpacked. Raises one of REFUSED."""
    plain = encoding.unpack(body, packed, most=most) if packed else body
    return openai.read(plain, route), plain


def answer(head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """What is told of a body; with it the body itself where it is another than came."""
    try:
        asked, plain = read(BY_PATH[head["route"]], head["packed"], head["most"], body)
    except REFUSED as error:
        return {"error": type(error).__name__, "message": error.message, "param": error.param}, b""
    answered = {
        "model": asked.model,
        "stream": asked.stream,
        "n": asked.choices,
        "wants": asdict(asked.wants),
        "sequences": asked.sequences,
    }
    if asked.model is None and "model" in asked.fields:  # null: the router puts the name in front
        plain = json.dumps({name: value for name, value in asked.fields.items() if name != "model"}).encode()
        return answered, plain
    return answered, plain if head["packed"] else b""


def understood(answered: dict[str, Any]) -> Asked | RouterError:
    """What `answer` told."""
    if "error" in answered:
        return ERRORS[answered["error"]](answered["message"], param=answered["param"])
    return Asked(
        answered["model"], answered["stream"], {}, Wants(**answered["wants"]), answered["n"], answered["sequences"]
    )


def serve(connection: socket.socket) -> None:
    """One body after the other, until the worker is gone."""
    with connection, connection.makefile("rb", buffering=1 << 20) as stream:
        while len(sizes := stream.read(SIZES.size)) == SIZES.size:
            head_size, body_size = SIZES.unpack(sizes)
            head, body = stream.read(head_size), stream.read(body_size)
            if len(body) < body_size:
                return
            answered, plain = answer(json.loads(head), body)
            connection.sendall(framed(answered, plain))
            connection.sendall(plain)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us
    with socket.socket(fileno=sys.stdin.fileno()) as connection:
        try:
            serve(connection)
        except (BrokenPipeError, ConnectionResetError):
            return  # the worker is gone


if __name__ == "__main__":
    main()
