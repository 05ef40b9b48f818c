"""What the scripts of this folder share: run each try, and print how it went, a JSON object a line.

They run in environments of their own, where nothing of Pilotlight can be imported. Where the endpoints are stands in
variables.
"""

import asyncio
import inspect
import json
import os
import socket
import subprocess
import sys
import tempfile
import traceback
from contextlib import closing, contextmanager
from pathlib import Path

CHAT, EMBED, WIDE = "demo", "embedder", "wide"
ORIGIN = os.environ["TRY_ORIGIN"]
KEY, EMBED_KEY, WIDE_KEY = os.environ["TRY_KEY"], os.environ["TRY_EMBED_KEY"], os.environ["TRY_WIDE_KEY"]
URL, EMBED_URL, WIDE_URL = (f"{ORIGIN}/e/{name}/v1" for name in (CHAT, EMBED, WIDE))
MODEL_FOLDER = os.environ["TRY_MODEL"]  # with the tokenizer, for programs that count tokens themselves
FOLDER = Path(tempfile.mkdtemp(prefix="try-", dir=os.environ["HOME"]))
BIN = Path(sys.executable).parent  # of the environment: its programs
SAY = [{"role": "user", "content": "What is Pilotlight?"}]
LONG = [{"role": "user", "content": "word " * 3000}]
YES_OR_NO = {
    "type": "object",
    "properties": {"yes": {"type": "boolean"}},
    "required": ["yes"],
    "additionalProperties": False,
}


def run(*tries) -> None:
    """Each is a function; its first line of documentation says what is tried. Whatever it raises is its failure."""
    failed = False
    for each in tries:
        try:
            done = each()
            if inspect.isawaitable(done):
                asyncio.run(done)
            said = ""
        except BaseException as error:
            said = f"{type(error).__name__}: {str(error)[:300]}"
            if os.environ.get("TRY_VERBOSE"):
                traceback.print_exc()
        failed = failed or bool(said)
        found = json.dumps({"tried": (each.__doc__ or each.__name__).strip(), "failed": said})
        print(f"\n{found}", flush=True)  # a line of its own, whatever the program has printed
    sys.exit(failed)


def raises(kind, call, **attributes):
    """`call` has to raise this, with these attributes."""
    try:
        call()
    except kind as error:
        for name, value in attributes.items():
            assert getattr(error, name) == value, f"{name} is {getattr(error, name)!r}, not {value!r}"
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def out(*command, given=None, seconds=140, **environ):
    """What a program prints. Raises AssertionError where it ends badly."""
    parts = list(map(str, command))
    done = subprocess.run(
        parts, input=given, capture_output=True, check=False, timeout=seconds, cwd=FOLDER, env=os.environ | environ
    )
    said = f"{done.stdout[-400:].decode(errors='replace')} {done.stderr[-400:].decode(errors='replace')}"
    assert done.returncode == 0, f"{Path(parts[0]).name} ended with {done.returncode}: {said}"
    return done.stdout.decode()


def free_port():
    with closing(socket.socket()) as asked:
        asked.bind(("127.0.0.1", 0))
        return asked.getsockname()[1]


@contextmanager
def serving(*command, port, seconds=100, **environ):
    """A program that serves, until the block ends. It serves once its port answers."""
    said = (FOLDER / "served").open("w+b")
    program = subprocess.Popen(list(map(str, command)), stdout=said, stderr=said, cwd=FOLDER, env=os.environ | environ)
    try:
        _until_it_listens(program, port, seconds, said)
        yield f"http://127.0.0.1:{port}"
    finally:
        program.terminate()
        program.wait(20)


def _until_it_listens(program, port, seconds, said):
    """Raises AssertionError with its last words."""
    for _ in range(int(seconds * 4)):
        with closing(socket.socket()) as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return
        try:
            program.wait(0.25)
        except subprocess.TimeoutExpired:
            continue
        break
    said.seek(0)
    raise AssertionError(f"it does not serve: {said.read()[-300:].decode(errors='replace')}")
