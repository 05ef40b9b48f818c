"""What can be wrong with a replica in ways its agent must tell apart, drawn as a tree.

Exception
└── CanaryMismatch    it answers otherwise than it did at its revision's first boot
"""

from __future__ import annotations


class CanaryMismatch(RuntimeError):
    """The engine answers otherwise than it did at this revision's first boot. It never serves; the next rung down is tried."""
