"""Models of the streaming rules: ``woodpecker.streaming.core``'s own functions in every order of events.

``cases.py`` lists the parts; ``python -m woodpecker.testing.model stream-produce`` explores one. Logs are
real facts folded by the real fold; what is left out is bytes, and everything below a log: one call makes
its next batch durable, in order, until another writer opens it.
"""
