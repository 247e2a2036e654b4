"""Broadcasts as a model; see ``model.py``."""
