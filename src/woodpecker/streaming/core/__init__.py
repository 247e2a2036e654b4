"""Pure rules of the streaming service: standard library only, no I/O, clock, chance or task."""
