"""The errors of snapshots, drawn as a tree. Every text says what was found and what to do.

SnapshotError
├── HeaderError       a safetensors file that is not one, or lies about its tensors
├── PackError         a model folder that cannot become a snapshot
│   ├── CodeRefused       it brings code: pickle weights, .py, auto_map, a symlink out of the folder
│   ├── Incomplete        something belongs to it that is not there
│   └── UnknownModel      an architecture the engine does not know
├── StoreFull         no room for it
├── NotStored         no snapshot of that digest here
├── TamperedError     a stored snapshot is not what its digest says
└── OriginError       another store, which snapshots are pushed to and pulled from, does not do its part
    ├── Unreachable       it does not answer, or stops answering
    ├── NoBucket          it has no such bucket or folder
    └── Denied            it does not let us

HubError              a model of a hub cannot be had; a SnapshotError too
├── HubAway               the hub does not answer, or stops answering
└── HubRefused            it has no such model, or does not let us
LineageError          what is told of a snapshot's origin cannot be read; a SnapshotError too
"""

from __future__ import annotations

PUSH = "push it again from where it is whole (`pilotlight snapshot push`)"  # the remedy of several


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


class UnknownModel(PackError):
    """The engine does not know the architecture; the text has the nearest names it knows."""


class StoreFull(SnapshotError):
    """There is no room; nothing of the snapshot is left behind but, of one half fetched, what was good."""


class NotStored(SnapshotError):
    """No snapshot of that digest is in this store, or the digest is none."""


class TamperedError(SnapshotError):
    """A stored snapshot is not what its digest says; the text names the file."""


class OriginError(SnapshotError):
    """Another store does not do its part; the text names it."""


class Unreachable(OriginError):
    """It does not answer, or stops answering; asked again, the work goes on where it stopped."""


class NoBucket(OriginError):
    """There is no such bucket or folder."""


class Denied(OriginError):
    """It refuses our credentials, or what they ask for."""


class HubError(SnapshotError):
    """A model of a hub cannot be had; the text names it."""


class HubAway(HubError):
    """The hub does not answer, or stops answering; asked again, a download goes on where it stopped."""


class HubRefused(HubError):
    """The hub has no such model, or does not let us."""


class LineageError(SnapshotError):
    """What is told of a snapshot's origin cannot be read; the snapshot is not concerned."""
