"""Deploys on a real line, under traffic: what serves goes on through a bad one, a good one and the way back, and no
answer is cut.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.integration.system import System, wait_until

LONG = {"model": "deployed", "prompt": "x", "max_tokens": 900, "ignore_eos": True, "stream": True}
SHORT = {"model": "deployed", "prompt": "x", "max_tokens": 1}


@dataclass
class Traffic:
    """Streams back to back, two at a time, and short calls: what they were answered."""

    whole: int = 0
    answered: int = 0
    wrong: list[str] = field(default_factory=list)


@contextmanager
def traffic(system: System, key: str) -> Iterator[Traffic]:
    told, ending = Traffic(), threading.Event()

    def streams() -> None:
        with system.client(key) as client:
            while not ending.is_set():
                with client.stream("POST", "/e/deployed/v1/completions", json=LONG) as answer:
                    text = "".join(answer.iter_text())
                if answer.status_code == 200 and text.rstrip().endswith("data: [DONE]") and '"error"' not in text:
                    told.whole += 1
                else:
                    told.wrong.append(text[-300:])

    def calls() -> None:
        with system.client(key) as client:
            while not ending.is_set():
                answer = client.post("/e/deployed/v1/completions", json=SHORT)
                told.answered += 1
                if answer.status_code != 200:
                    told.wrong.append(answer.text[:300])

    threads = [threading.Thread(target=target) for target in (streams, streams, calls)]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def refused(system: System, *arguments: str) -> str:
    """What a command that fails says."""
    command = [sys.executable, "-m", "pilotlight.cli.main", *arguments]
    done = subprocess.run(command, env=system.environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stderr


def numbers(system: System) -> dict[int, str]:
    return {row["number"]: row["state"] for row in json.loads(system.cli("revisions", "deployed", "--json"))}


def test_good_bad_good_and_back_without_one_failed_call(system: System) -> None:
    key = system.deploy("deployed", "--idle-timeout", "600", "--min-replicas", "1", "--slots", "8")
    assert numbers(system) == {1: "serves"}, "the command has waited until it serves"
    with traffic(system, key) as told:
        wait_until(lambda: told.whole, 60, "a stream is whole")
        # nobody has it
        said = refused(system, "deploy", "deployed", "--digest", "sha256:" + "0" * 64)
        assert "is not in" in said and numbers(system) == {1: "serves"}
        # what cannot be is refused before anything moves
        said = refused(system, "deploy", "deployed", "--engine-arg", "max-model-len=999999999")
        assert "vLLM refuses its arguments" in said and "1024" in said, said
        said = refused(system, "set", "deployed", "--engine-arg", "no-such-argument=1")
        assert "no-such-argument" in said, said
        said = refused(system, "set", "deployed", "--engine-arg", "port=1")
        assert "engine argument port" in said, said
        assert numbers(system) == {1: "serves"}, "what is refused is no revision"
        # bad at its start
        said = refused(system, "deploy", "deployed", "--engine-arg", "kv-cache-memory-bytes=4096")
        assert "revision 2 failed" in said and "revision 1 goes on serving" in said
        assert numbers(system) == {2: "failed", 1: "serves"}
        events = json.loads(system.cli("events", "deployed", "--json"))
        assert events[0]["kind"] == "deploy_failed" and "revision 1 goes on serving" in events[0]["text"]
        # an argument there is not
        said = refused(
            system,
            "set",
            "deployed",
            "--engine-arg",
            "no-such-argument=1",
            "--unset-engine-arg",
            "kv-cache-memory-bytes",
        )
        assert "has no 'kv-cache-memory-bytes' to unset" in said, "what failed is not what it has"
        # one field
        system.cli("set", "deployed", "slots=16")
        assert numbers(system) == {3: "serves", 2: "failed", 1: "served"}
        row = next(row for row in json.loads(system.cli("ls", "--json")) if row["name"] == "deployed")
        assert (row["slots"], row["idle_timeout_seconds"], row["engine_args"], row["last_failed"]) == (
            16,
            600.0,
            {},
            None,
        )
        # and back
        system.cli("rollback", "deployed", "--to", "1")
        assert numbers(system)[4] == "serves"
        before = told.whole
        wait_until(lambda: told.whole > before + 2, 60, "streams at the last one are whole, too")
    assert not told.wrong, told.wrong
    print(f"{told.whole} streams and {told.answered} calls over three deploys, none failed")
    wait_until(lambda: len(system.replicas("deployed")) == 1, 60, "the old ones have ended")
    (replica,) = system.replicas("deployed")
    assert replica["state"] == "ready"
