"""The control plane: which replicas run, where, and who is told."""

import pilotlight  # noqa: F401  (before structlog: see there)
