"""What vLLM is kept from doing again changes nothing that it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import snapshots


def test_a_tokenizer_says_the_same_with_and_without_the_shortcuts() -> None:
    model = Path(snapshots.__file__).parent / "demo" / "model"
    probe = [sys.executable, "-m", "tests.integration.tokenizer_probe", str(model)]
    said = json.loads(subprocess.run(probe, check=True, capture_output=True, text=True, timeout=180).stdout.splitlines()[-1])
    assert said["before"]["encoded"][0], "the tokenizer encodes nothing at all"
    assert said.pop("file") == [said["before"]["largest"], said["before"]["longest"]]
    assert len(said) == 7
    for when, told in said.items():
        assert told == said["before"], when
