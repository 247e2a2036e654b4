"""The streaming service: publish and subscribe on named channels. See docs/streaming.md.

The public names of its clients, and nothing else. They are loaded when first used, so that importing a
part of the service does not load the whole.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from woodpecker.app_streaming import connect
    from woodpecker.streaming.client.channel import Channel
    from woodpecker.streaming.client.client import StreamingClient
    from woodpecker.streaming.client.deliveries import BatchConsumption, Consumption
    from woodpecker.streaming.client.messages import Message, Tick, TickSignal
    from woodpecker.streaming.client.producer import Producer
    from woodpecker.streaming.client.subscriptions import Subscription
    from woodpecker.streaming.client.transactions import Transaction
    from woodpecker.streaming.core.values import Position, Where
    from woodpecker.streaming.standalone import Standalone

__all__ = [
    "BatchConsumption",
    "Channel",
    "Consumption",
    "Message",
    "Position",
    "Producer",
    "Standalone",
    "StreamingClient",
    "Subscription",
    "Tick",
    "TickSignal",
    "Transaction",
    "Where",
    "connect",
]

_HOMES = {
    "BatchConsumption": "woodpecker.streaming.client.deliveries",
    "Channel": "woodpecker.streaming.client.channel",
    "Consumption": "woodpecker.streaming.client.deliveries",
    "Message": "woodpecker.streaming.client.messages",
    "Position": "woodpecker.streaming.core.values",
    "Producer": "woodpecker.streaming.client.producer",
    "Standalone": "woodpecker.streaming.standalone",
    "StreamingClient": "woodpecker.streaming.client.client",
    "Subscription": "woodpecker.streaming.client.subscriptions",
    "Tick": "woodpecker.streaming.client.messages",
    "TickSignal": "woodpecker.streaming.client.messages",
    "Transaction": "woodpecker.streaming.client.transactions",
    "Where": "woodpecker.streaming.core.values",
    "connect": "woodpecker.app_streaming",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'woodpecker.streaming' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
