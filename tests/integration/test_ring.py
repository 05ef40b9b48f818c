"""vLLM's weights through the ring are its own loader's, tensor for tensor, and so are those of the other loaders of the
benchmark.
"""

from __future__ import annotations

from pathlib import Path

from tests.integration.forks import call
from tests.integration.ring_probe import compared


def test_every_loader_gives_the_same_weights(tmp_path: Path) -> None:
    answer = call(compared, str(tmp_path))
    assert answer["same"]
    assert answer["tensors"] > 60
    assert answer["files"] == 3
    assert len(answer["loaded"]) == 5
    assert len(set(map(tuple, answer["loaded"].values()))) == 1, answer["loaded"]
    assert answer["refused"] == "the files lack extra, which the model needs"
    assert answer["unnamed"], "a tensor the index does not name is loaded as well"
