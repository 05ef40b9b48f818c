"""Which paths are the admin process's, however they are written."""

from __future__ import annotations

import pytest

from router.admission.admin_reach import is_relayed


@pytest.mark.parametrize(
    ("path", "its"),
    [
        ("/api", True),
        ("/api/v1/endpoints", True),
        ("//api//v1/endpoints", True),
        ("/v1//organization/usage", True),
        ("/console/", True),
        ("/apiary", False),
        ("/v1/organizations", False),
        ("/v1/models", False),
        ("/e/api/v1/models", False),
        ("", False),
    ],
)
def test_paths_of_the_admin_process(path: str, its: bool) -> None:
    assert is_relayed(path) == its
