"""Typed records of the streaming service over the metadata port."""
