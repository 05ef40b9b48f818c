"""vLLM's weights through the ring are its own loader's, tensor for tensor, and so are those of the other loaders of the benchmark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_every_loader_gives_the_same_weights(tmp_path: Path) -> None:
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    command = [sys.executable, "-m", "tests.integration.ring_probe", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False, env=os.environ | quiet)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["same"]
    assert answer["tensors"] > 60
    assert answer["files"] == 3
    assert len(answer["loaded"]) == 5
    assert len(set(map(tuple, answer["loaded"].values()))) == 1, answer["loaded"]
    assert answer["refused"] == "the files lack extra, which the model needs"
    assert answer["unnamed"], "a tensor the index does not name is loaded as well"
