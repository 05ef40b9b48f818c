"""Embedding models as their authors meant them: our vectors are those of sentence-transformers, for three published
shapes.

sentence-transformers lives in an environment of its own, kept between runs, beside our torch and transformers.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from pilotlight.cli.bench.peers import python_with
from tests.embedding_models import TEXTS, make
from tests.integration.system import System

pytestmark = pytest.mark.timeout(900)  # the first time here its environment is installed

SHAPES = ("mean", "cls", "last", "dense")
LEAST_COSINE = 0.9999
PEER = "sentence-transformers==6.2.0"
ENCODE = """
import json, sys
import torch
from sentence_transformers import SentenceTransformer
for folder in sys.argv[2:]:
    model = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": torch.float32})
    print(json.dumps(model.encode(json.loads(sys.argv[1])).tolist()))
"""


def authors(folders: list[Path]) -> list[list[list[float]]]:
    """What sentence-transformers makes of the texts: a list of vectors for each folder."""
    python = python_with(f"torch=={version('torch')}", f"transformers=={version('transformers')}", PEER)
    done = subprocess.run(
        [str(python), "-c", ENCODE, json.dumps(TEXTS), *map(str, folders)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)


def test_our_vectors_are_those_of_the_authors(system: System, tmp_path: Path) -> None:
    """No argument is given but the task: pooling, normalisation and length are the folder's affair."""
    folders = [make(shape, tmp_path / shape) for shape in SHAPES]
    theirs = authors(folders)
    for shape, folder, expected in zip(SHAPES, folders, theirs, strict=True):
        key = system.deploy(shape, "--task", "embed", model=folder)
        with system.client(key) as client:
            answer = client.post(f"/e/{shape}/v1/embeddings", json={"input": TEXTS, "model": shape})
            assert answer.status_code == 200, answer.text
            ours = [row["embedding"] for row in answer.json()["data"]]
        near = [cosine(one, other) for one, other in zip(ours, expected, strict=True)]
        assert min(near) >= LEAST_COSINE, (shape, near)
        assert all(abs(math.hypot(*one) - 1) < 1e-3 for one in ours), "they are normalised"
        assert cosine(ours[0], ours[1]) < 0.999, "and not all the same"
