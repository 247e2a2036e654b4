"""Faults on real processes and real stores: kills, pauses, fights and outages, with a verifier.

``python -m woodpecker.testing.faults --help``; docs/testing.md tells how the runs are made.
"""
