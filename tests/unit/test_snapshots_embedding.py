"""Embedding models: what an engine would pass over without a word is refused, and what a client must do is told."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from snapshots.embedding import DENSE, NORMALIZE, POOLING, SETTINGS, check_modules
from snapshots.errors import PackError

ST = "sentence_transformers.models."
TRANSFORMER = {"path": "", "type": ST + "Transformer"}
POOL = {"path": "1_Pooling", "type": ST + "Pooling"}
NORM = {"path": "2_Normalize", "type": ST + "Normalize"}
PROJECT = {"path": "2_Dense", "type": ST + "Dense"}


def check(modules: Any, pooling: Any = None, **more: Any) -> tuple[str, ...]:
    files = {
        "modules.json": modules,
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": True} if pooling is None else pooling,
        **more,
    }
    return check_modules(files, lambda path: json.dumps(files[path]).encode())


@pytest.mark.parametrize(
    "modules", [[TRANSFORMER, POOL], [TRANSFORMER, POOL, NORM], [TRANSFORMER, POOL, PROJECT, PROJECT, NORM]]
)
@pytest.mark.parametrize(
    "pooling", [{"pooling_mode_cls_token": True, "pooling_mode_max_tokens": False}, {"pooling_mode": "lasttoken"}]
)
def test_what_the_engine_knows_is_taken(modules: Any, pooling: Any) -> None:
    assert check(modules, pooling) == ()
    assert check_modules(["config.json"], lambda path: b"") == ()


@pytest.mark.parametrize(
    ("modules", "pooling", "said"),
    [
        (
            [TRANSFORMER, POOL],
            {"pooling_mode_max_tokens": True},
            "asks for the pooling max, and the engine knows cls, lasttoken, mean",
        ),
        (
            [TRANSFORMER, POOL],
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            "pooling cls and mean",
        ),
        ([TRANSFORMER, POOL], {"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
        ([TRANSFORMER, POOL], {"pooling_mode": "mean_sqrt_len"}, "mean_sqrt_len"),
        ([TRANSFORMER, POOL], {"word_embedding_dimension": 3}, "of no kind"),
        ([TRANSFORMER, POOL], [], "of no kind"),
        ([TRANSFORMER], None, "names 0 poolings"),
        ([TRANSFORMER, POOL, POOL], None, "names 2 poolings"),
        ([TRANSFORMER, POOL, NORM, PROJECT], None, "pooling before normalize before dense"),
        (
            [TRANSFORMER, POOL, {"path": "2", "type": ST + "LayerNorm"}],
            None,
            "LayerNorm.*which the engine does not know",
        ),
        ([TRANSFORMER, POOL, {"path": "2", "type": "custom_st.Transformer"}], None, "custom_st"),
        ([TRANSFORMER, POOL, {"path": "2"}], None, "which the engine does not know"),
        ([TRANSFORMER, {"path": "9_Pooling", "type": ST + "Pooling"}], None, "9_Pooling/config.json is not there"),
        ({"modules": []}, None, "is not a list of modules"),
        ([1], None, "is not a list of modules"),
    ],
)
def test_what_it_would_pass_over_is_refused(modules: Any, pooling: Any, said: str) -> None:
    with pytest.raises(PackError, match=said):
        check(modules, pooling)


def test_prompts_of_its_authors_are_told() -> None:
    prompts = {"prompts": {"query": "Represent this: ", "document": ""}, "default_prompt_name": "query"}
    (told,) = check([TRANSFORMER, POOL], None, **{SETTINGS: prompts})
    assert "query: 'Represent this: ' (by default)" in told
    assert check([TRANSFORMER, POOL], None, **{SETTINGS: {"prompts": 1}}) == ()


def test_the_modules_we_take_are_those_of_the_engine_we_pin() -> None:
    spec = find_spec("vllm")
    assert spec is not None and spec.submodule_search_locations
    source = (Path(spec.submodule_search_locations[0]) / "transformers_utils" / "config.py").read_text()
    for name, ours in (
        ("_ST_POOLING_MODULE_TYPES", POOLING),
        ("_ST_NORMALIZE_MODULE_TYPES", NORMALIZE),
        ("_DENSE_MODULE_TYPES", DENSE),
    ):
        found = re.search(rf"{name} = \{{(.*?)\}}", source, re.S)
        assert found is not None, name
        assert ours <= set(re.findall(r'"([^"]+)"', found[1])), name
