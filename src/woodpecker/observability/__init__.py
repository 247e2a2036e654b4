"""Metrics, traces and events go through one object that is passed in, never a global."""
