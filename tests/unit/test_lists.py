"""Words with commas between them are the list they mean; what is no list of texts is refused with what it should be."""

from __future__ import annotations

import pytest

from pilotlight.lists import words
from pilotlight.settings import SettingsError, load


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("a", ["a"]),
        (" a, b,,c ,", ["a", "b", "c"]),
        ("", []),
        (" , ", []),
        (["a", " b "], ["a", " b "]),
        (("a",), ["a"]),
        ([], []),
    ],
)
def test_what_is_written_is_what_is_meant(given: object, meant: list[str]) -> None:
    assert words(given, what="letters") == meant


@pytest.mark.parametrize("given", [5, None, {"a": 1}, ["a", 5], b"a"])
def test_anything_else_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match="it is a list of letters"):
        words(given, what="letters")


@pytest.mark.parametrize("setting", ["names", "cors_origins", "trusted_proxies"])
def test_every_setting_that_is_a_list_says_what_of(setting: str) -> None:
    with pytest.raises(SettingsError, match=rf"router\.{setting}: .*it is a list of "):
        load(router={setting: 5})
