"""A standby on a machine with a GPU: rehearsed, without CUDA and without a thread that is not on the list, and it stays
forkable.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pilotlight.settings import load
from runtime.control import Control, FromStandby, Rehearsed
from runtime.node.standby_environment import standby_environ
from tests.integration.system import MODEL

pytest.importorskip("torch", reason="torch is not installed: PILOTLIGHT_EXTRA=gpu make setup")

import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU that PyTorch can use is here"),
    pytest.mark.timeout(600),
]


def test_a_standby_is_rehearsed_without_cuda_and_without_threads_nobody_knows(tmp_path: Path) -> None:
    ours, theirs = Control.pair()
    log = tmp_path / "log"
    with theirs, log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "runtime.fork.standby", str(theirs.fileno()), str(MODEL)],
            pass_fds=[theirs.fileno()],
            env=standby_environ(load(state_dir=tmp_path), "cuda"),
            stdout=output,
            stderr=output,
        )
    with ours, process:
        ours.settimeout(300)
        got = Control(ours, FromStandby).receive()
        ours.close()  # with its agent gone it goes too
    assert got is not None and isinstance(got[0], Rehearsed), log.read_text()
    assert got[0].device == "cuda" and process.returncode == 0, log.read_text()
