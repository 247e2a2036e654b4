"""Segment stores: one port (base.py), one adapter per kind, and the reader of sealed objects."""
