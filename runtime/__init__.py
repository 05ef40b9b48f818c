"""What runs inside a node's agent, its standbys and its replicas."""

import pilotlight  # noqa: F401  (before structlog: see there)
