"""The pure core: the rules of the log as functions of plain values.

Nothing here does I/O, reads a clock, draws a random number or awaits. Drivers call it and carry out
what it answers; the model checker and the simulator call the very same functions.
"""
