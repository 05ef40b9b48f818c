"""docs/modules.md says what the modules say of themselves."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_made_from_the_code() -> None:
    written = runpy.run_path(str(ROOT / "infra" / "modules.py"))
    assert written["PAGE"].read_text() == written["render"](), (
        "docs/modules.md is behind the code: run python infra/modules.py"
    )
