"""Files that call and deploy. One installation for all of them: its drain is far too short for a stream, which must not
go by it.
"""

from __future__ import annotations

from tests.integration.system import shared

installation, system = shared(PILOTLIGHT_ACTIVATOR__DRAIN_SECONDS="0.05")
