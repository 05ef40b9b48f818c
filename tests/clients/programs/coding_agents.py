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


def codex():
    """exec, Responses API with its tools"""
    configured(
        ".codex/config.toml",
        f'model = "{WIDE}"\nmodel_provider = "ours"\nmodel_context_window = 32000\n[model_providers.ours]\nname = "ours"\n'
        f'base_url = "{WIDE_URL}"\nenv_key = "WIDE_KEY"\nwire_api = "responses"\nrequest_max_retries = 0\n'
        "stream_max_retries = 0\n",
    )
    ours = {
        "CODEX_HOME": str(FOLDER / ".codex"),
        "WIDE_KEY": WIDE_KEY,
        "SSL_CERT_FILE": os.environ["NODE_EXTRA_CA_CERTS"],
    }
    asked = ("exec", "--json", "--skip-git-repo-check", "--sandbox", "read-only", SAY)
    said = out(MODULES / ".bin" / "codex", *asked, given=b"", **ours)
    told = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert any(each["type"] == "turn.completed" for each in told), told[-3:]


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


run({"codex": codex, "opencode": opencode, "pi": pi}[sys.argv[1]])
