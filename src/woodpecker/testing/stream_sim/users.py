"""Who uses the service, by the letter of the slot."""

from __future__ import annotations

from woodpecker.testing.stream_sim.listeners import ConsumerUser, SubscriberUser
from woodpecker.testing.stream_sim.operators import BroadcasterUser, OperatorUser
from woodpecker.testing.stream_sim.senders import DeleterUser, ProducerUser

User = ProducerUser | DeleterUser | ConsumerUser | SubscriberUser | OperatorUser | BroadcasterUser
USERS: dict[str, type[User]] = {
    "p": ProducerUser, "d": DeleterUser, "r": ConsumerUser, "s": SubscriberUser,
    "o": OperatorUser, "b": BroadcasterUser,
}  # fmt: skip
FINISHES = "sb"  # in the end there is one of these, whatever befell the one before
