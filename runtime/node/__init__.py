"""The agent's process, one a node: it keeps standbys, starts and ends replicas, and has snapshots at hand. No torch
here.
"""
