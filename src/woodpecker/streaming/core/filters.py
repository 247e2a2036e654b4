"""Filters of consumers: judged per message, after its transaction is whole (rules, section 9)."""

from __future__ import annotations

from woodpecker.streaming.core.values import Properties, Where


def matches(where: Where, *, type_: str, key: bytes, properties: Properties) -> bool:
    """Whether a message passes: all that is given must hold; a property must be there with that value."""
    return (
        (where.type is None or where.type == type_)
        and (where.key is None or where.key == key)
        and all(wanted in properties for wanted in where.properties)
    )
