"""Files that people write in TOML, `pilotlight.toml` and an endpoint's: refused by their fields' names, or believed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pilotlight.cli.endpoints.manifest import ManifestError, read_manifest
from pilotlight.paths import SettingsError
from pilotlight.settings import load

LONGEST = 4000  # characters of a refusal: each of many fields may be wrong

SEEDS = (
    b"\x00[router]\nport = 9443\ncors_origins = ['https://a.example']\ntrusted_proxies = ['10.0.0.0/8', 'unix']\n",
    b'\x00state_dir = "x"\n[activator]\ndrain_seconds = 1e400\n[disk]\nspool_bytes = -1\n[nothing]\nx = 1\n',
    b'\x00[snapshots]\norigin = "s3://a/b"\n[node]\nmemory_bytes = "10GB"\n[logs]\ntotal_bytes = 1_000\n',
    b'\x01name = "demo"\nmodel = "hf://a/b"\nidle_timeout_seconds = 30\n[prices]\ninput = 0.2\ncached = "0.1"\noutput = 1\n'
    b"valid_from = 2026-12-01T00:00:00+23:59\n",
    b'\x01name = "a"\ndigest = "sha256:'
    + b"0" * 64
    + b'"\nmin_replicas = 1\nallow = ["media"]\n[engine_args]\nseed = 1\n',
)

_kept = tempfile.TemporaryDirectory(prefix="fuzz-toml-", dir="/dev/shm")  # to the end of the process
_file = Path(_kept.name, "pilotlight.toml")


def target(data: bytes) -> None:
    """The first byte chooses the file."""
    if not data:
        return
    try:
        if data[0] % 2:
            read_manifest(data[1:].decode("utf-8", "replace"), "endpoint.toml").configuration()
        else:
            _load(data[1:])
    except (ManifestError, SettingsError) as error:
        assert 0 < len(str(error)) < LONGEST, len(str(error))


def _load(content: bytes) -> None:
    _file.write_bytes(content)
    before = os.environ.get("PILOTLIGHT_CONFIG")
    os.environ["PILOTLIGHT_CONFIG"] = str(_file)
    try:
        load()
    finally:
        del os.environ["PILOTLIGHT_CONFIG"]
        if before is not None:
            os.environ["PILOTLIGHT_CONFIG"] = before
