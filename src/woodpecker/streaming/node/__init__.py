"""A streaming node: serves the channels it owns under a term."""
