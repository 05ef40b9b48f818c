"""What is held to times, on a machine that does nothing else. One installation for all of it."""

from __future__ import annotations

from tests.integration.system import shared

installation, system = shared()
