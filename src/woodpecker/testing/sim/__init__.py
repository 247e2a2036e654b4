"""Deterministic simulation: the real drivers in one process, on virtual time, among faults that a seed draws."""
