"""Agents of the command line that come by npm, each with its own long instructions and tools. Which is tried says the
first argument.

What a model this small answers does not matter: that each finishes its turn does. Run by Python, which starts them;
Node's packages lie in TRY_MODULES.
"""

import json
import os
import sys
from pathlib import Path

from trying import FOLDER, WIDE, WIDE_KEY, WIDE_URL, out, run

MODULES = Path(os.environ["TRY_MODULES"])
SAY = "What is Pilotlight? Answer in a word."


def configured(path, text):
    file = FOLDER / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def opencode():
    """run"""
    ours = {"npm": "@ai-sdk/openai-compatible", "options": {"baseURL": WIDE_URL, "apiKey": WIDE_KEY}}
    model = {"name": WIDE, "limit": {"context": 32_000, "output": 60}}
    configured(
        "opencode.json",
        json.dumps({"provider": {"ours": ours | {"models": {WIDE: model}}}, "autoupdate": False, "share": "disabled"}),
    )
    assert out(MODULES / "opencode-linux-x64" / "bin" / "opencode", "run", "-m", f"ours/{WIDE}", SAY, given=b"").strip()


def pi():
    """-p, its tools"""
    model = {"id": WIDE, "contextWindow": 32_000, "maxTokens": 60}
    ours = {"baseUrl": WIDE_URL, "api": "openai-completions", "apiKey": WIDE_KEY, "models": [model]}
    configured(".pi/agent/models.json", json.dumps({"providers": {"ours": ours}}))
    said = out(MODULES / ".bin" / "pi", "-p", "--provider", "ours", "--model", WIDE, SAY, given=b"", HOME=str(FOLDER))
    assert said.strip()


run({"opencode": opencode, "pi": pi}[sys.argv[1]])
