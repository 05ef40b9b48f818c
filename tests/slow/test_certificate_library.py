"""A router with no certificate but its own does not keep the library in memory that reads others'."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pilotlight import tls
from pilotlight.settings import Paths

SHOW_OURS = """
import sys
from pathlib import Path
from router.edge.certificate import Certificates, Pair
pair = Pair(Path(sys.argv[1]), Path(sys.argv[1]))
certificates = Certificates(pair)
certificates.look()
print("cryptography" in sys.modules)
"""


def test_where_nobody_has_one_of_his_own_the_library_that_reads_them_is_not_in_memory(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "state")
    paths.make()
    command = [sys.executable, "-c", SHOW_OURS, str(tls.ensure(paths).cert_file)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
