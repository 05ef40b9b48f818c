"""The control plane: it decides which replicas run where, and publishes that to routers and nodes."""

import pilotlight  # noqa: F401  (before structlog: see there)
