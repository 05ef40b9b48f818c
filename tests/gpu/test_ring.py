"""The ring on a real GPU: the tensors are the file's, none is overwritten, it keeps up with the bus, and nothing
touches CUDA before.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from loadtests.bench.loading import BUS_SHARE
from pilotlight.cli.bench import loaders
from snapshots.synth import synth
from tests.integration.system import MODEL

pytest.importorskip("torch", reason="torch is not installed: PILOTLIGHT_EXTRA=gpu make setup")

import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU that PyTorch can use is here"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield synth("tiny", tmp_path_factory.mktemp("models") / "tiny") / "model.safetensors"


def streamed(file: Path, **budgets: int) -> Generator[tuple[str, torch.Tensor], None, None]:
    from runtime.loader.device import CudaDevice
    from runtime.loader.plan import plan
    from runtime.loader.ring import describe, stream

    return stream(plan([describe(file)], None, **budgets), CudaDevice(torch.device("cuda")))


def test_the_tensors_are_the_files(model: Path) -> None:
    from safetensors.torch import load_file

    wanted = load_file(model)
    found = {name: tensor.cpu() for name, tensor in streamed(model)}
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_what_the_consumer_keeps_is_never_overwritten(model: Path) -> None:
    """Small slots and little memory ahead: slots are written again and again while kernels look at earlier tensors."""
    from safetensors.torch import load_file

    kept = []
    for name, tensor in streamed(model, slot_bytes=64 << 10, pinned_bytes=1 << 20, device_bytes=32 << 20):
        kept.append((name, tensor, tensor.float().square().sum()))
    torch.cuda.synchronize()
    wanted = load_file(model)
    for name, tensor, computed in kept:
        assert torch.equal(tensor.cpu(), wanted[name])
        assert torch.allclose(computed.cpu(), wanted[name].float().square().sum(), rtol=1e-3)


def test_an_abandoned_load_gives_the_memory_back(model: Path) -> None:
    before = torch.cuda.memory_allocated()
    tensors = streamed(model, slot_bytes=64 << 10, pinned_bytes=1 << 20, device_bytes=32 << 20)
    next(tensors)
    tensors.close()
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before


def test_it_keeps_up_with_the_bus(tmp_path: Path) -> None:
    """A shard of an 8B model: large enough that what comes before the first byte does not count."""
    file = max(synth("llama3-8b", tmp_path / "model").glob("*.safetensors"), key=lambda file: file.stat().st_size)
    found = loaders.compare(file, rounds=3, gpu=True, scratch=tmp_path, say=print)
    assert "error" not in found["loaders"]["ring, to the GPU"], found
    assert found["ring_share_of_pinned_copy"] >= BUS_SHARE, found


def test_a_standby_that_knows_the_ring_has_not_touched_cuda() -> None:
    probe = "import torch, runtime.loader.device, runtime.loader.ring; assert not torch.cuda.is_initialized()"
    subprocess.run([sys.executable, "-c", probe], check=True, timeout=120)


def test_a_rehearsed_standby_has_not_touched_cuda() -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed here")
    probe = "import torch; from pathlib import Path; from runtime.engine.rehearsed import rehearse; "
    probe += f"rehearse(Path({str(MODEL)!r})); import runtime.engine.serving; assert not torch.cuda.is_initialized()"
    subprocess.run([sys.executable, "-c", probe], check=True, timeout=300)
