"""In a replica's API process, around the engine's server: slots, counts, journal and pulse. No torch here. Steps 8,
11, 12.
"""
