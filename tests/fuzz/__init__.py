"""Fuzzing: every parser of bytes from outside, one module a parser, run by `python -m tests.fuzz`.

A module has `target(data)`, which raises only on a fault of ours, never for bytes that are refused as they should be,
and `SEEDS`, inputs that the parser takes, from which the fuzzer starts. `tests/slow/test_fuzz.py` runs each on its
seeds, and on some mutations.
"""
