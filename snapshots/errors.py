"""What can be wrong with a snapshot, drawn as a tree. Every text says what was found and what to do.

SnapshotError
├── HeaderError       a safetensors file that is not one, or lies about its tensors
├── PackError         a model folder that cannot become a snapshot
│   ├── CodeRefused       it brings code: pickle weights, .py, auto_map, a symlink out of the folder
│   └── Incomplete        something belongs to it that is not there
├── StoreFull         no room for it
├── NotStored         no snapshot of that digest here
└── TamperedError     a stored snapshot is not what its digest says
"""

from __future__ import annotations


class SnapshotError(Exception):
    """Base of all."""


class HeaderError(SnapshotError):
    """A safetensors file that is not one, or lies about its tensors."""


class PackError(SnapshotError):
    """A model folder that cannot become a snapshot."""


class CodeRefused(PackError):
    """The folder brings code, or something that could be: a snapshot is data only."""


class Incomplete(PackError):
    """Something belongs to the model that the folder does not hold."""


class StoreFull(SnapshotError):
    """There is no room; nothing of the snapshot is left behind."""


class NotStored(SnapshotError):
    """No snapshot of that digest is in this store, or the digest is none."""


class TamperedError(SnapshotError):
    """A stored snapshot is not what its digest says; the text names the file."""
