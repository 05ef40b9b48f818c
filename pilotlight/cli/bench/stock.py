"""Stock vLLM beside ours: its own server, the same snapshot, context and cache, with nothing of ours in it.

It is ended by -9 with its whole session, and the shared memory it leaves behind is removed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from pilotlight import children
from pilotlight.cli.bench.coldstart import QUESTION, BenchFailed, first_content
from pilotlight.ports import free_port
from runtime.tasks import CHAT

START_SECONDS = 600.0  # the longest a start may take
MODEL = "m"


@dataclass(frozen=True)
class Stock:
    """A running stock vLLM server."""

    url: str
    first_token: float  # seconds from the start of its process
    group: int  # of its processes

    def pause(self) -> None:
        """Stop it where it stands, so that it takes nothing of the machine but memory."""
        os.killpg(self.group, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.group, signal.SIGCONT)


def first_token(model: Path, *, kv_cache_bytes: int, max_model_len: int) -> float:
    """Seconds from the start of stock vLLM's server to its first token. Raises BenchFailed when it ends before."""
    with running(model, kv_cache_bytes=kv_cache_bytes, max_model_len=max_model_len) as stock:
        return stock.first_token


@contextmanager
def running(model: Path, *, kv_cache_bytes: int, max_model_len: int, slots: int = 0) -> Iterator[Stock]:
    """Stock vLLM's server, once it gave a first token. `slots`: requests it works on at once; 0: as it likes. Raises
    BenchFailed.
    """
    port = free_port()
    command = [
        *children.python("vllm.entrypoints.openai.api_server"),
        "--model",
        str(model),
        "--served-model-name",
        MODEL,
    ]
    command += [
        "--enforce-eager",
        "--kv-cache-memory-bytes",
        str(kv_cache_bytes),
        "--max-model-len",
        str(max_model_len),
    ]
    command += ["--disable-fastapi-docs", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--max-num-seqs", str(slots)] if slots else []
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    memory = set(os.listdir("/dev/shm"))
    begin = time.monotonic()
    with tempfile.TemporaryFile() as log:
        environ = children.environment(os.environ) | quiet
        process = subprocess.Popen(
            command, env=environ, stdout=log, stderr=log, cwd=children.FOLDER, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            yield Stock(url, _poll(process, url, begin), process.pid)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for name in set(os.listdir("/dev/shm")) - memory:
                if not name.startswith("pl"):  # ours remove their own
                    Path("/dev/shm", name).unlink(missing_ok=True)


def _poll(process: subprocess.Popen[bytes], url: str, begin: float) -> float:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
        "max_tokens": 16,
        "temperature": 0,
    }
    with httpx.Client(timeout=300, trust_env=False) as client:
        while True:
            if process.poll() is not None:
                raise BenchFailed(f"stock vLLM ended with {process.returncode} before it answered")
            if time.monotonic() - begin > START_SECONDS:
                raise BenchFailed(f"stock vLLM gave no token within {START_SECONDS:g} s")
            try:
                with client.stream("POST", f"{url}{CHAT.path}", json=body) as answer:
                    if (took := first_content(answer.iter_lines(), begin)) is not None:
                        return took
            except httpx.HTTPError:
                time.sleep(0.005)
