"""The one task that owns all state, and its actors: each does one thing when the reconciler calls it. Steps 6, 7 and
10.
"""
