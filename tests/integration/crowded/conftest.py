"""Files in which not all fits. One installation for both."""

from __future__ import annotations

from tests.integration.system import shared

FRACTION = 0.2  # of this machine's memory, so that the caches stay small
LEAST_STAY = 3.0  # seconds

SETTINGS = {"MEMORY_FRACTION": FRACTION, "LEAST_STAY_SECONDS": LEAST_STAY, "TURN_SECONDS": 2.0}

installation, system = shared(**{f"PILOTLIGHT_ACTIVATOR__{name}": str(value) for name, value in SETTINGS.items()})
