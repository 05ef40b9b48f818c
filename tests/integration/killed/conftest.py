"""Files that end, stop and damage what runs. One installation for all of them."""

from __future__ import annotations

from tests.integration.system import shared

installation, system = shared(PILOTLIGHT_ROUTER__WORKERS="2")
