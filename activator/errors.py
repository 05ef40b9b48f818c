"""The errors of the activator, as a tree.

ActivatorProblem
├── CommandRefused    a command is malformed or not allowed: the text says what to do
│   └── NotLeading    another activator would carry it out: ask again
└── LeadershipLost    another activator leads, or may: this one ends, and its supervisor starts it to wait in line
"""

from __future__ import annotations


class ActivatorProblem(Exception):
    """Base of the activator's own errors."""


class CommandRefused(ActivatorProblem):
    """A command cannot be carried out as given."""


class NotLeading(CommandRefused):
    """The command is good, and this activator may not carry it out."""


class LeadershipLost(ActivatorProblem):
    """This activator must not act any more."""
