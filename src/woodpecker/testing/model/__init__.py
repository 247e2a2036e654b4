"""A small explicit-state model checker, and models of the log protocol over its real functions.

``explore(model)`` visits every state that a model can reach, shortest way first, and tells the story of
the first rule that it sees broken. ``python -m woodpecker.testing.model`` explores the project's own
models, and shows that each rule left out is caught.
"""

from woodpecker.testing.model.checker import Broken, Model, Result, explore

__all__ = ["Broken", "Model", "Result", "explore"]
