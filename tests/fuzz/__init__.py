"""Fuzzing: each entrance as a function of some bytes that raises where the entrance breaks its promise.

`targets.TARGETS` has them. `python -m tests.fuzz` looks for bytes that make them raise, guided by coverage.
What it kept is in `corpus/`, what it found once in `crashes/`, and `test_fuzz.py` runs both without it.
"""
