"""Assignment of a pchannel as a model; see ``model.py``."""
