"""Owners by terms and claims, and producers that write through them, whatever crashes or is cut."""
