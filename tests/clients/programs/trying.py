"""What the scripts of this folder share: run each try, and print how it went, a JSON object a line.

They run in environments of their own, where nothing of Pilotlight can be imported. Where the endpoints are stands in variables.
"""

import asyncio
import inspect
import json
import os
import sys
import traceback

CHAT, EMBED = "demo", "embedder"
ORIGIN = os.environ["TRY_ORIGIN"]
KEY, EMBED_KEY = os.environ["TRY_KEY"], os.environ["TRY_EMBED_KEY"]
URL, EMBED_URL = f"{ORIGIN}/e/{CHAT}/v1", f"{ORIGIN}/e/{EMBED}/v1"
SAY = [{"role": "user", "content": "What is Pilotlight?"}]
LONG = [{"role": "user", "content": "word " * 3000}]
YES_OR_NO = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"], "additionalProperties": False}


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
        print(json.dumps({"tried": (each.__doc__ or each.__name__).strip(), "failed": said}), flush=True)
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
