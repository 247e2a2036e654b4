"""Ticks, limits, signals and ephemerals over the terms of owners whose clocks differ."""
