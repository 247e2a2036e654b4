"""Messages of ``woodpecker.streaming.v1``: made from ``streaming/proto`` by ``make proto``."""
