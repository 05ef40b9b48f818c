"""Names of models on a hub, and of files in it: what is refused before anybody is asked."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from snapshots import hub
from snapshots.errors import HubError
from snapshots.hub_files import escaped


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hf://", "does not name a model"),
        ("hf://name", "does not name a model"),
        ("hf://org/name@", "does not name a model"),
        ("hf://org/name/model.gguf", "names one file"),
        ("hf://datasets/org/name", "names a dataset"),
        ("hf://org/na me", "does not name a model"),
        ("hf://../../etc", "does not name"),
    ],
)
def test_what_names_no_model_is_refused_before_anybody_is_asked(text: str, said: str) -> None:
    with pytest.raises(HubError, match=said):
        hub.parse(text)


@pytest.mark.parametrize(
    ("text", "repo", "revision", "spelt"),
    [
        ("hf://Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B", "main", "hf://Qwen/Qwen3-0.6B"),
        ("hf://org/name@v1", "org/name", "v1", "hf://org/name@v1"),
        ("hf://org/name@refs/pr/3", "org/name", "refs/pr/3", "hf://org/name@refs/pr/3"),
        ("hf://models/org/name@main", "org/name", "main", "hf://org/name"),
    ],
)
def test_a_name_has_a_repository_and_a_revision(text: str, repo: str, revision: str, spelt: str) -> None:
    found = hub.parse(text)
    assert (found.repo, found.revision, str(found)) == (repo, revision, spelt)


def test_names_with_signs_of_patterns_mean_themselves() -> None:
    for name in ("a[1].json", "a*.json", "a?.json"):
        assert fnmatchcase(name, escaped(name))
        assert not fnmatchcase("a1.json", escaped(name))
