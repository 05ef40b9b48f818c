"""The errors of a replica that its agent must tell apart, drawn as a tree.

Exception
├── CanaryMismatch    it answers otherwise than it did at its revision's first boot
├── MeteringBroken    what it did for the canary was not counted
└── NotAllowed        its engine arguments would execute or open what this machine lets nobody
"""

from __future__ import annotations


class CanaryMismatch(RuntimeError):
    """The engine answers otherwise than it did at this revision's first boot. It never serves; the next rung down is
    tried.
    """


class MeteringBroken(RuntimeError):
    """The engine answered its canary and its tokens were not counted, or not rightly. It never serves: nothing it did
    could be billed.
    """


class NotAllowed(ValueError):
    """Its engine arguments would execute code or open files, and this machine's settings do not allow it. It is never
    forked.
    """
