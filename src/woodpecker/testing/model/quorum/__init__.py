"""A model of kind ``quorum`` over the real functions of ``woodpecker.core`` (log protocol, section 7)."""
