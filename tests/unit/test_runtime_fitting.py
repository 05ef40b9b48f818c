"""What a node can say of a revision without its engine: a model that makes no text is not deployed for text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pilotlight.settings import RuntimeSettings
from runtime.node.deploy_checks import DeployChecks
from runtime.tasks import Task
from runtime.wire import CheckArguments
from snapshots.known import unfit_here


@pytest.mark.parametrize(
    ("config", "task", "says"),
    [
        ({"architectures": ["BertModel"]}, "generate", "--task embed"),
        ({"architectures": ["BertModel"]}, "embed", ""),
        ({"architectures": ["BertForSequenceClassification"]}, "generate", "--task score"),
        ({"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}, "score", ""),
        (
            {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "no", "1": "yes"}},
            "score",
            "has 2 labels",
        ),
        ({"architectures": ["BertForSequenceClassification"]}, "score", "has 2 labels"),
        ({"architectures": ["BertForSequenceClassification"], "num_labels": 1}, "score", ""),
        ({"architectures": ["HF_ColBERT"]}, "score", ""),
        ({"architectures": ["LlamaForCausalLM"]}, "generate", ""),
        ({"architectures": ["LlamaForCausalLM"]}, "embed", ""),
        ({"architectures": []}, "generate", ""),
        ([], "generate", ""),
    ],
)
def test_a_model_is_deployed_for_what_it_does(tmp_path: Path, config: object, task: Task, says: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    frame = CheckArguments(check_id="c", task=task, digest="sha256:" + "a" * 64, engine_args={})
    answer = DeployChecks(device="cuda", settings=RuntimeSettings()).look(frame, tmp_path)
    assert answer is not None and answer.checked
    assert says in answer.reason and (says or not answer.reason)


@pytest.mark.parametrize(
    ("quantization", "cpu", "cuda"),
    [
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", ""),
        ({"quant_method": "modelopt_fp4"}, "modelopt_fp4", ""),
        ({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}, "nvfp4-pack-quantized", ""),
        ({"quant_method": "mxfp8"}, "mxfp8", ""),
        ({"quant_method": "compressed-tensors", "format": "int-quantized"}, "", ""),
        ({"quant_method": "awq"}, "", ""),
        ({"quant_method": "mxfp4"}, "", ""),
        (None, "", ""),
    ],
)
def test_weights_that_the_device_cannot_multiply_are_not_deployed(quantization: object, cpu: str, cuda: str) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "quantization_config": quantization}
    assert (unfit_here(config, "cpu") == "") is (cpu == "") and cpu in unfit_here(config, "cpu")
    assert unfit_here(config, "cuda") == cuda
