"""What vLLM is kept from doing again changes nothing that it says."""

from __future__ import annotations

from tests.integration.forks import call
from tests.integration.system import MODEL
from tests.integration.tokenizer_probe import told


def test_a_tokenizer_says_the_same_with_and_without_the_shortcuts() -> None:
    said = call(told, str(MODEL))
    assert said["before"]["encoded"][0], "the tokenizer encodes nothing at all"
    assert said.pop("file") == (said["before"]["largest"], said["before"]["longest"])
    assert len(said) == 7
    for when, words in said.items():
        assert words == said["before"], when
