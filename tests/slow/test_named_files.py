"""What a docstring or page says of another file is about a file that is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
NAMED = re.compile(r"`([A-Za-z_][\w./-]*\.(?:py|sql|md))(?:::\w+)?`")
EXAMPLES = {
    "SUBJECT.sql",
    "queue.py",
    "router.py",
    "versions/0007_anything.py",
    "folder/name.sql",
}  # of names, in text about names
OF_A_TIME = re.compile(r"CHANGELOG\.md|DECISIONS\.md|RESULTS\.md|tests/recorded/")  # what was so when it was written


def test_every_file_that_is_named_is_there() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    there = {"/".join(parts[at:]) for file in files for parts in [file.split("/")] for at in range(len(parts))}
    missing = [
        f"{file}: `{name}`"
        for file in files
        if file.endswith((".py", ".md", ".sql", ".toml", "Makefile")) and not OF_A_TIME.search(file)
        for name in NAMED.findall((ROOT / file).read_text())
        if name not in there and name not in EXAMPLES
    ]
    assert not missing, missing
