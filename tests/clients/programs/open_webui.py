"""Open WebUI's backend, without a browser: models, a chat, a stream, vectors for its documents."""

import json
from contextlib import ExitStack

import httpx
from trying import BIN, CHAT, EMBED, EMBED_KEY, EMBED_URL, FOLDER, KEY, SAY, URL, free_port, run, serving

stack, port = ExitStack(), free_port()
TOLD = {
    "OPENAI_API_BASE_URLS": f"{URL};{EMBED_URL}",
    "OPENAI_API_KEYS": f"{KEY};{EMBED_KEY}",
    "RAG_EMBEDDING_ENGINE": "openai",
    "RAG_EMBEDDING_MODEL": EMBED,
    "RAG_OPENAI_API_BASE_URL": EMBED_URL,
    "RAG_OPENAI_API_KEY": EMBED_KEY,
    "ENABLE_OLLAMA_API": "false",
    "WEBUI_AUTH": "false",
    "WEBUI_SECRET_KEY": "none",
    "DATA_DIR": str(FOLDER / "data"),
    "OFFLINE_MODE": "true",
    "ENABLE_VERSION_UPDATE_CHECK": "false",
}
client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)


def started():
    """models of two connections"""
    stack.enter_context(
        serving(BIN / "open-webui", "serve", "--host", "127.0.0.1", "--port", port, port=port, seconds=260, **TOLD)
    )
    token = client.post("/api/v1/auths/signin", json={"email": "", "password": ""}).json()["token"]
    client.headers["authorization"] = f"Bearer {token}"
    told = client.get("/api/models").json()
    assert {CHAT, EMBED} <= {model["id"] for model in told["data"]}, told


def chat():
    """chat"""
    answer = client.post("/api/chat/completions", json={"model": CHAT, "messages": SAY, "max_tokens": 8})
    assert answer.json()["choices"][0]["message"]["content"], answer.text[:300]


def stream():
    """streamed"""
    asked = {"model": CHAT, "messages": SAY, "max_tokens": 8, "stream": True}
    lines = [
        line for line in client.post("/api/chat/completions", json=asked).text.splitlines() if line.startswith("data: ")
    ]
    assert lines[-1] == "data: [DONE]", lines
    assert any(
        json.loads(line[6:])["choices"][0]["delta"].get("content")
        for line in lines[:-1]
        if '"choices":[{' in line.replace(" ", "")
    )


def verify():
    """its check of a connection"""
    answer = client.post("/openai/verify", json={"url": URL, "key": KEY})
    assert answer.status_code == 200, answer.text[:300]


def documents():
    """vectors of a document"""
    sent = {"file": ("about.txt", b"Pilotlight is a serverless platform for language models.", "text/plain")}
    answer = client.post("/api/v1/files/", files=sent, params={"process": "true", "process_in_background": "false"})
    assert answer.status_code == 200, answer.text[:300]
    told = client.get(f"/api/v1/files/{answer.json()['id']}").json()
    assert told["data"].get("status", "completed") == "completed", told["data"]


with stack:
    run(started, chat, stream, verify, documents)
