"""Ports of the service: streams, endpoints, and what answers at them. Adapters: ``transport``.

A server serves objects that implement some of ``AssignmentServer``, ``HandlerServer``, ``ManagerServer``;
one process may serve all at one address.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from woodpecker.streaming import frames, requests
from woodpecker.streaming.requests import Request

Out_contra = TypeVar("Out_contra", contravariant=True)
In_co = TypeVar("In_co", covariant=True)
Reply = TypeVar("Reply")


class Stream(Protocol, Generic[Out_contra, In_co]):
    """One of two ends of a stream of frames, in order, nothing lost but by its end."""

    async def send(self, frame: Out_contra) -> None:
        """Hand over one frame; waits while the other side does not take any.

        Raises: Refused(UNKNOWN): the stream has ended; nothing is known of frames without answer.
        """

    async def receive(self) -> In_co | None:
        """The next frame, or None: the other side has closed in good order after its last frame.

        Raises: Refused(UNKNOWN): it was cut. Refused of another class: the server refused the stream.
        """

    async def close(self) -> None:
        """End this side: after what was sent, the other one receives None. Idempotent."""

    def cut(self) -> None:
        """End both sides at once. Idempotent."""


class Endpoint(Protocol):
    """One address, from a client's side. Opening a stream does not wait for the other side."""

    address: str

    def produce(self) -> Stream[frames.ProduceUp, frames.ProduceDown]:
        """HandlerService.Produce."""

    def consume(self) -> Stream[frames.ConsumeUp, frames.ConsumeDown]:
        """HandlerService.Consume."""

    def discover(self) -> Stream[frames.DiscoverUp, frames.DiscoverDown]:
        """AssignmentService.Discover."""

    def status(self) -> Stream[frames.WatchStatus, frames.NodeStatus]:
        """ManagerService.Status."""

    async def call(self, request: Request[Reply], *, timeout_ms: int = 10_000) -> Reply:
        """One unary request.

        Raises: Refused: by the server; UNAVAILABLE when it surely did not arrive; UNKNOWN when that is not known
        (also after ``timeout_ms``).
        """


class Dialer(Protocol):
    """Finds endpoints; connections are shared and made when used."""

    def endpoint(self, address: str) -> Endpoint:
        """The endpoint at ``address`` (host:port, or a name in process)."""

    async def close(self) -> None:
        """Cut everything."""


class HandlerServer(Protocol):
    """What a node answers to clients. Raising Refused ends a stream or call with it."""

    async def produce(self, stream: Stream[frames.ProduceDown, frames.ProduceUp]) -> None:
        """Serve one Produce stream until it ends."""

    async def consume(self, stream: Stream[frames.ConsumeDown, frames.ConsumeUp]) -> None:
        """Serve one Consume stream until it ends."""

    async def handle(self, request: Request[Reply]) -> Reply:
        """Unary requests of the HandlerService."""


class ManagerServer(Protocol):
    """What a node answers to coordinators."""

    async def status(self, stream: Stream[frames.NodeStatus, frames.WatchStatus]) -> None:
        """Serve one Status stream until it ends."""

    async def manage(self, request: Request[Reply]) -> Reply:
        """Assign, Release, AppendControl."""


class AssignmentServer(Protocol):
    """What a coordinator answers; nodes relay it for clients that know only them."""

    async def discover(self, stream: Stream[frames.DiscoverDown, frames.DiscoverUp]) -> None:
        """Serve one Discover stream until it ends."""

    async def assign(self, request: Request[Reply]) -> Reply:
        """Unary requests of AssignmentService and BroadcastService."""


HANDLER_REQUESTS: Sequence[type[Request[Any]]] = (
    requests.GetReadPoint,
    requests.DescribeTransaction,
    requests.OpenCursor,
    requests.CommitCursor,
    requests.ListCursors,
    requests.DeleteCursor,
)
MANAGER_REQUESTS: Sequence[type[Request[Any]]] = (
    requests.Assign,
    requests.Release,
    requests.AppendControl,
)
ASSIGNMENT_REQUESTS: Sequence[type[Request[Any]]] = (
    requests.Locate,
    requests.CreateChannel,
    requests.DeleteChannel,
    requests.ListChannels,
    requests.DescribeCluster,
    requests.Move,
    requests.Freeze,
    requests.Drain,
    requests.SetPolicy,
    requests.AddPchannels,
    requests.Broadcast,
    requests.GetBroadcast,
    requests.ListBroadcasts,
    requests.ResumeBroadcast,
)
