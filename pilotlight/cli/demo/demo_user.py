"""What the demo does as a user would: type a command, ask with the OpenAI client, look into the logs."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from pilotlight import children
from pilotlight.cli.api import Api

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


class DemoFailed(Exception):
    """Something did not come out as it must; the text says what."""


async def type_command(*arguments: str, state: Path) -> str:
    """A command of ours, as a user types it. Raises DemoFailed."""
    command = children.python("pilotlight.cli.main", *arguments, "--state", str(state))
    process = await asyncio.create_subprocess_exec(
        *command, env=children.environment(os.environ), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, said = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise DemoFailed(f"pilotlight {arguments[0]}: {said.decode().strip()}")
    return out.decode()


def ask_and_stream(api: Api, endpoint: str, key: str, question: str) -> dict[str, Any]:
    import httpx2
    from openai import OpenAI, OpenAIError

    # The product's own CA, as a user would give it; see the README.
    with OpenAI(
        base_url=f"{api.url}/e/{endpoint}/v1",
        api_key=key,
        http_client=httpx2.Client(verify=ssl.create_default_context(cafile=api.ca_file), trust_env=False),
    ) as client:
        begin = time.monotonic()
        first, text = 0.0, ""
        try:
            answer = client.chat.completions.with_raw_response.create(
                model=endpoint,
                messages=[{"role": "user", "content": question}],
                stream=True,
                temperature=0,
                max_tokens=120,
            )
            for chunk in answer.parse():
                piece = chunk.choices[0].delta.content if chunk.choices else None
                if piece:
                    first = first or time.monotonic() - begin
                    text += piece
                    console.out(piece, end="")
        except OpenAIError as error:
            raise DemoFailed(str(error)) from error
        console.print()
        headers = answer.headers
        return {
            "id": headers["x-request-id"],
            # a head that goes out while the call is still held does not say it
            "start": headers.get("x-pilotlight-start", "cold"),
            "first": first,
            "whole": time.monotonic() - begin,
            "text": text,
        }


def show_logs(logs: Path) -> None:
    for log in sorted(logs.rglob("*.log")):
        tail = log.read_text(errors="replace").splitlines()[-15:]
        console.print(f"--- {log.name}", *tail, sep="\n", markup=False)
