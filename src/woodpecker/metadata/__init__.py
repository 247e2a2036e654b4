"""Metadata stores: one port (base.py), its adapters, and the typed catalog above them."""
