"""The blocking facade of the streaming service: the same names, from threads."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import woodpecker as wp
from woodpecker import blocking, streaming
from woodpecker.blocking import streaming as facade


@pytest.fixture
def client() -> Iterator[facade.StreamingClient]:
    with (
        blocking.connect("memory://") as store,
        facade.Standalone(store) as service,
        service.connect(timeout_s=30) as client,
    ):
        yield client


def test_every_way_to_send_and_consume(client: facade.StreamingClient) -> None:
    channel = client.create_channel("orders", exist_ok=True, attributes={"of": "test"})
    assert (channel.name, channel.attributes) == ("orders", {"of": "test"})
    assert repr(client.open_channel("orders")) == repr(channel)
    made = client.create_channels(["many-1", "many-2"], attributes={"of": "test"})
    assert [(each.name, each.attributes) for each in made] == [
        ("many-1", {"of": "test"}),
        ("many-2", {"of": "test"}),
    ]
    with channel.producer("billing") as producer:
        first = producer.send(b"paid", key="7", type="event")
        many = producer.send_many([b"a", wp.Message(b"b", key=b"8")])
        futures = [producer.submit(b"%d" % number) for number in range(100)]
        producer.flush()
        producer.ready()
        with producer.transaction(keep_alive_s=5) as tx:
            tx.send(b"debit")
            tx.send_many([b"credit"])
        with pytest.raises(ZeroDivisionError), producer.transaction() as lost:  # noqa: PT012
            lost.send(b"never")
            raise ZeroDivisionError
    places = [first, *many, *(future.result() for future in futures), tx.position]
    assert places == sorted(places)  # type: ignore[type-var]
    found = list(channel.consume(end="tail"))
    assert [m.payload for m in found[-2:] if isinstance(m, wp.Message)] == [b"debit", b"credit"]
    assert len(found) == 105
    assert sum(map(len, channel.consume_batches(end="tail"))) == 105
    (keyed,) = channel.consume(end="tail", where=wp.Where(key=b"8"))
    assert isinstance(keyed, wp.Message)
    assert keyed.payload == b"b"
    assert channel.read_point() > found[-1].position  # type: ignore[union-attr]
    assert set(client.broadcast(["orders"], b"schema", key="k")) == {"orders"}
    assert client.list_channels("o") == ["orders"]
    client.delete_channel("orders")
    with pytest.raises(wp.NotFound):
        client.open_channel("orders")


def test_a_subscription_goes_on_where_it_was(client: facade.StreamingClient) -> None:
    channel = client.create_channel("orders")
    with channel.producer() as producer:
        place = producer.send_many([b"%d" % number for number in range(10)])[-1]
    for begin in (0, 5):
        with channel.subscribe("mailer") as subscription:
            assert subscription.name == "mailer"
            for number in range(begin, begin + 5):
                message = next(subscription)
                assert message.payload == b"%d" % number
                subscription.ack(message)
            if begin:
                subscription.ack_through(place)
                subscription.wait_until(place)
                assert subscription.position > place
                assert subscription.lag == 0


def test_many_threads_share_a_producer(client: facade.StreamingClient) -> None:
    channel = client.create_channel("orders")
    with channel.producer() as producer, ThreadPoolExecutor(8) as pool:
        places = list(pool.map(lambda n: producer.send(b"%d" % n), range(200)))
    assert len(set(places)) == 200


def test_closing_ends_those_who_wait(client: facade.StreamingClient) -> None:
    channel = client.create_channel("orders")
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            next(channel.consume())
        except wp.WoodpeckerError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not caught:
        client.close()
        thread.join(0.05)
    assert isinstance(caught[0], wp.Closed)


def test_addresses_are_looked_at_before_anything_is_started() -> None:
    before = threading.active_count()
    with pytest.raises(wp.InvalidRequest):
        facade.connect("no port")
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "name", ["StreamingClient", "Channel", "Producer", "Transaction", "Subscription"]
)
def test_the_same_names_as_without_threads(name: str) -> None:
    here, there = getattr(facade, name), getattr(streaming, name)
    mirrored = {
        n for n, value in vars(here).items() if not n.startswith("_") and inspect.isfunction(value)
    }
    assert mirrored <= set(vars(there))
    ours_alone = {"vcid", "pchannel", "session", "message", "check_batch", "keep_alive", "spawn"}
    missing = {n for n in vars(there) if not n.startswith("_")} - set(vars(here)) - ours_alone
    assert missing <= {"sleep_ms"}
