"""What an agent says of a revision before it is deployed: what a replica there would cut of its model, and what never
fits.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pilotlight.settings import RuntimeSettings
from runtime.control import Checked
from runtime.node import deploy_checks
from runtime.node.deploy_checks import DeployChecks
from runtime.wire import CheckArguments

CONFIG = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 128, "max_position_embeddings": 131072}


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def looked(device: str = "cpu") -> DeployChecks:
    return DeployChecks(device=device, settings=RuntimeSettings())


def test_without_arguments_no_standby_is_asked(snapshot: Path) -> None:
    answer = looked().look(CheckArguments(check_id="c", slots=4), snapshot)
    assert answer is not None and answer.checked and not answer.reason
    assert "cut to 4096 of the 131072" in answer.notes[0]
    assert looked("cuda").look(CheckArguments(check_id="c", slots=4), snapshot) == looked().look(
        CheckArguments(check_id="c"), snapshot
    )
    nowhere = looked().look(CheckArguments(check_id="c", slots=4), None)
    assert nowhere is not None and not nowhere.notes


def test_with_arguments_the_notes_go_with_the_standbys_answer(snapshot: Path) -> None:
    agent = looked()
    assert agent.look(CheckArguments(check_id="c", slots=4, engine_args={"seed": 1}), snapshot) is None
    answer = agent.answer(Checked(check_id="c", reason="no"))
    assert (answer.reason, len(answer.notes)) == ("no", 1)
    assert agent.answer(Checked(check_id="c", reason="")).notes == ()
    assert agent.look(CheckArguments(check_id="d", slots=4, engine_args={"seed": 1}), snapshot) is None
    busy = agent.unchecked("d", "busy")
    assert (busy.checked, busy.reason, len(busy.notes)) == (False, "busy", 1)


def test_what_never_fits_is_refused_and_what_cannot_be_read_is_passed_over(snapshot: Path) -> None:
    frame = CheckArguments(check_id="c", slots=4, engine_args={"max-model-len": 1 << 40})
    answer = looked().look(frame, snapshot)
    assert answer is not None and "max-model-len=1099511627776 needs a cache of" in answer.reason
    (snapshot / "config.json").write_text("{")
    assert looked().look(frame, snapshot) is None


def test_checks_that_nobody_answers_are_forgotten(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy_checks, "MOST_NOTES", 3)
    agent = looked()
    for number in range(4):
        agent.look(CheckArguments(check_id=str(number), slots=4, engine_args={"seed": 1}), snapshot)
    assert agent.answer(Checked(check_id="0", reason="")).notes == ()
    assert agent.answer(Checked(check_id="3", reason="")).notes
