"""JSON and TOML of others: whatever is none of it is a ValueError, however deep it is nested."""

from __future__ import annotations

import pytest

from pilotlight.cli.endpoints.manifest import ManifestError, read_manifest
from pilotlight.parsed import json_of, toml_of

DEEP = 100_000


def test_what_is_whole_is_read() -> None:
    assert json_of(b'{"a": [1]}') == {"a": [1]} and toml_of("a = [1]") == {"a": [1]}


@pytest.mark.parametrize("text", ["[" * DEEP, '{"a":' * DEEP, "", "{", "\ufeff{}"])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        json_of(text)


@pytest.mark.parametrize("text", ["a = " + "[" * DEEP, "a = " + "{a=" * DEEP, "a", "= 1"])
def test_what_is_no_toml_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        toml_of(text)
    with pytest.raises(ManifestError, match=r"endpoint\.toml is not TOML"):
        read_manifest(text, "endpoint.toml")


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_moment_that_utc_does_not_have_is_refused_by_its_field(moment: str) -> None:
    prices = f"input = 1\ncached = 1\noutput = 1\nvalid_from = {moment}\n"
    with pytest.raises(ManifestError, match=r"prices\.valid_from: must be a time of the years"):
        read_manifest(f'name = "a"\nmodel = "b"\n[prices]\n{prices}', "endpoint.toml")
