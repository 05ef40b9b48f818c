"""The ways in which a request ends, as its usage record names them. Step 12."""

from __future__ import annotations

from typing import Literal

Finish = Literal["complete", "client_disconnect", "upstream_error", "refused", "timeout", "router_lost"]
