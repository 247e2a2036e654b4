"""A model of kind ``object`` over the real functions of ``woodpecker.core`` (log protocol, section 5)."""
