"""A model of kind ``file`` over the real functions of ``woodpecker.core`` (log protocol, section 6)."""
