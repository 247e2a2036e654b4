"""Bytes of the streaming service: stream column, checkpoints, records. Pure."""
