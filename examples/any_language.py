"""A client of the streaming service that has nothing of Woodpecker: gRPC, and what the server tells of itself.

    woodpecker up &
    python examples/any_language.py 127.0.0.1:7300 orders paid packed

sends the words to the channel, prints all that the channel holds, and ends. Every language with gRPC can do the
same, from the .proto files (src/woodpecker/streaming/proto) or by reflection, as here. What the frames mean is
in docs/streaming-wire.md.
"""

from __future__ import annotations

import queue
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

PACKAGE = "woodpecker.streaming.v1"
TIMEOUT_S = 30


class Server:
    """One address; its services and messages come from the server itself."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self.pool = DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))

    def make(self, name: str, /, **fields: Any) -> Any:
        """A message of the package."""
        return GetMessageClass(self.pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))(**fields)

    def method(self, service: str, name: str) -> Any:
        """A method to call."""
        found = self.pool.FindServiceByName(f"{PACKAGE}.{service}").methods_by_name[name]
        kind = self.channel.stream_stream if found.client_streaming else self.channel.unary_unary
        return kind(
            f"/{PACKAGE}.{service}/{name}",
            request_serializer=GetMessageClass(found.input_type).SerializeToString,
            response_deserializer=GetMessageClass(found.output_type).FromString,
        )

    def stream(self, service: str, name: str) -> Stream:
        """A stream of frames."""
        return Stream(self.method(service, name))


class Stream:
    """Frames both ways."""

    def __init__(self, method: Any) -> None:
        self._out: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._frames = method(iter(self._out.get, None), timeout=TIMEOUT_S)

    def send(self, frame: Any) -> None:
        """One frame."""
        self._out.put(frame)

    def receive(self) -> Iterator[Any]:
        """Frames as they come, without the message that wraps each."""
        for wrapper in self._frames:
            kind = wrapper.WhichOneof("frame")
            if kind is not None:  # else one of a newer version, which may be ignored
                yield getattr(wrapper, kind)

    def next(self, kind: str) -> Any:
        """The next frame of that kind."""
        return next(frame for frame in self.receive() if frame.DESCRIPTOR.name == kind)

    def end(self) -> None:
        """No more frames from here."""
        self._out.put(None)


def main(address: str, name: str, words: list[str]) -> None:
    """Create the channel if need be, find its owner, send, and read."""
    anyone = Server(address)
    create = anyone.method("AssignmentService", "CreateChannel")
    request = anyone.make(
        "CreateChannelRequest", name=name, request=uuid.uuid4().hex, exist_ok=True
    )
    channel = create(request, timeout=TIMEOUT_S)
    owner = find_owner(anyone, channel.pchannel)
    send(Server(owner.address), owner, channel.vcid, words)
    for seq, text in read(Server(owner.address), owner, channel.vcid):
        print(seq, text)


def find_owner(anyone: Server, pchannel: str) -> Any:
    """Wait until the map names one that serves."""
    stream = anyone.stream("AssignmentService", "Discover")
    stream.send(anyone.make("DiscoverUp", discover_hello={"client": "any language"}))
    for change in stream.receive():
        for entry in change.entries:
            if entry.pchannel == pchannel and entry.serving:
                stream.end()
                return entry
    raise SystemExit(f"nobody serves {pchannel}")


def hello(owner: Any) -> dict[str, Any]:
    """Whom we expect to meet: anybody else refuses."""
    names = ("pchannel", "term", "incarnation")
    return {name: getattr(owner, name) for name in names}


def send(server: Server, owner: Any, vcid: int, words: list[str]) -> None:
    """One batch by an anonymous producer."""
    stream = server.stream("HandlerService", "Produce")
    stream.send(server.make("ProduceUp", produce_hello=hello(owner)))
    stream.send(server.make("ProduceUp", attach={"session": 1}))
    attached = stream.next("Attached")
    batch = {
        "session": 1,
        "sequence": attached.next_sequence,
        "vcid": vcid,
        "messages": {"payloads": [word.encode() for word in words]},
        "grant_tick": attached.grant_tick,
    }
    stream.send(server.make("ProduceUp", batch=batch))
    answer = next(f for f in stream.receive() if f.DESCRIPTOR.name in {"Ack", "BatchRefused"})
    if answer.DESCRIPTOR.name == "BatchRefused":
        raise SystemExit(answer.refusal.message)
    stream.end()


def read(server: Server, owner: Any, vcid: int) -> Iterator[tuple[int, str]]:
    """All there is now."""
    stream = server.stream("HandlerService", "Consume")
    stream.send(server.make("ConsumeUp", consume_hello=hello(owner)))
    subscribe = {
        "consumer": 1,
        "vcid": vcid,
        "start": {"form": "START_FORM_EARLIEST"},
        "stop": {"form": "END_FORM_TAIL"},
    }
    stream.send(server.make("ConsumeUp", subscribe=subscribe))
    for frame in stream.receive():
        if frame.DESCRIPTOR.name == "Data":
            texts = [payload.decode() for payload in frame.messages.payloads]
            yield from zip(frame.seqs, texts, strict=True)
            credit = {"size_bytes": frame.cost_bytes, "consumer": 1}
            stream.send(server.make("ConsumeUp", credit=credit))
        elif frame.DESCRIPTOR.name == "ConsumerEnded":
            stream.end()
        elif frame.DESCRIPTOR.name == "ConsumerRefused":
            raise SystemExit(frame.refusal.message)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: any_language.py HOST:PORT CHANNEL [WORD ...]")
    try:
        main(sys.argv[1], sys.argv[2], sys.argv[3:] or ["hello"])
    except grpc.RpcError as error:
        sys.exit(f"{sys.argv[1]}: {error.code().name}: {error.details()}")
