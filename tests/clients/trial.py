"""One client program against a running installation: its script is run as a user of that program would, and says itself
how it went.

The failures to survive: a program that hangs (it has its time, and that is its failure), and one that ends before it
has tried all.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.clients.table import Program

SECONDS = 400
PASSED_ON = ("PATH", "LANG", "TZ", "TRY_VERBOSE")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the endpoints are: `demo` generates, `embedder` embeds, `wide` has a long context, tools, and the
    log-probabilities of prompts.
    """

    origin: str
    ca_file: Path
    key: str
    embed_key: str
    wide_key: str = ""
    model: Path = Path()  # the folder of demo's


@dataclass(frozen=True, slots=True)
class Outcome:
    program: Program
    tried: tuple[str, ...]
    failed: dict[str, str]  # what was tried → what was said

    @property
    def passed(self) -> bool:
        return bool(self.tried) and not self.failed


def variables(program: Program, place: Place, home: str) -> dict[str, str]:
    """All that the program is given: nothing of this machine's, so that it is the variables we name which make it
    work.
    """
    ours = {
        "HOME": home,
        "OPENAI_BASE_URL": f"{place.origin}/e/demo/v1",
        "OPENAI_API_KEY": place.key,
        **dict.fromkeys(program.ca, str(place.ca_file)),
        "TRY_ORIGIN": place.origin,
        "TRY_KEY": place.key,
        "TRY_EMBED_KEY": place.embed_key,
        "TRY_WIDE_KEY": place.wide_key,
        "TRY_MODEL": str(place.model),
        "PYTHONUTF8": "1",
        "DO_NOT_TRACK": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        "HF_HUB_OFFLINE": "1",
    }
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | ours


def attempt(program: Program, command: Sequence[str], place: Place) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="client-") as home:
        try:
            done = subprocess.run(
                command,
                env=variables(program, place, home),
                cwd=home,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            printed = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
            return _read(program, printed, f"not done after {SECONDS} s", ended_well=False)
    return _read(program, done.stdout, done.stderr.strip()[-500:], ended_well=done.returncode == 0)


def _read(program: Program, printed: str, said: str, *, ended_well: bool) -> Outcome:
    found = [json.loads(line) for line in printed.splitlines() if line.startswith('{"tried"')]
    failed = {each["tried"]: each["failed"] for each in found if each["failed"]}
    if not ended_well and not failed:
        failed["its end"] = said or "it ended without a word"
    return Outcome(program, tuple(each["tried"] for each in found), failed)
