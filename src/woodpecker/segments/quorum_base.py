"""What kind ``quorum`` needs to know of the cluster: which nodes there are, and where to find them."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Protocol

from woodpecker.core.manifest import Ensemble, Manifest, Member


class Nodes(Protocol):
    """The LogStore nodes of one cluster, as one client sees them. One event loop."""

    async def choose(
        self, manifest: Manifest, *, avoid: AbstractSet[str] = frozenset()
    ) -> Ensemble:
        """Nodes for the next segment of a log, by its options; fewer (2 of 2) where no more live.

        Args:
            avoid: nodes that just failed this writer; taken only if there is no other way.
        Raises: Unavailable: fewer than two nodes can be used now; says which and why.
        """

    async def address(self, member: Member) -> str:
        """``host:port`` of the member now; of a past incarnation, too, for which its node still speaks.

        Raises: Unavailable: not known, or not up; with ``retryable`` False if what it held is gone.
        """

    def zone_of(self, node: str) -> str:
        """The zone of a node as last read; "" if unknown."""

    def wanted(self, ensemble: Ensemble, manifest: Manifest) -> bool:
        """Whether a better ensemble could be chosen now (a third node came back, one is draining)."""

    def failed(self, node: str) -> None:
        """The node did not answer: placement avoids it for a while."""

    def answered(self, node: str, *, pressure: int = 0) -> None:
        """The node answered; ``pressure`` as in ``Appended``."""

    async def close(self) -> None:
        """Stop watching."""
