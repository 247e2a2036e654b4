"""The hello over TCP: who is let in, who is not, and what they are told."""

from __future__ import annotations

import asyncio
import socket

import pytest
from tests.unit.rpc.wire_kit import (
    LONG_MS,
    NONCE,
    RUNTIME,
    client,
    greeted_client,
    raw_client,
    raw_node,
    served,
)  # fmt: skip

from woodpecker.access import Access
from woodpecker.codec.messages import (
    Append,
    Challenge,
    Done,
    Hello,
    Ping,
    Refused,
    Status,
    Tell,
    Welcome,
)  # fmt: skip
from woodpecker.errors import InvalidRequest, Unavailable
from woodpecker.rpc import hello
from woodpecker.rpc.tcp import serve, split_address
from woodpecker.testing.conformance.transport import TARGET, Node
from woodpecker.testing.servers.certificates import make_certificates

SECRET, OTHER = Access(secret=b"ours"), Access(secret=b"theirs")


async def let_in(server, access=None) -> None:
    async with client(access) as transport:
        link = await transport.connect(server.address, timeout_ms=LONG_MS)
        assert (await link.send(Ping(), timeout_ms=LONG_MS)).message == Done()


@pytest.mark.parametrize(
    ("node_has", "client_has", "text"),
    [
        (SECRET, OTHER, "not the one of this cluster"),
        (SECRET, None, "asks for the shared secret"),
        (None, SECRET, "asks for no secret although"),
    ],
)
async def test_secrets_that_do_not_fit(node_has, client_has, text):
    async with served(access=node_has) as server, client(client_has) as transport:
        with pytest.raises(InvalidRequest, match=f"{server.address}.*{text}"):
            await transport.connect(server.address, timeout_ms=LONG_MS)
        await let_in(server, node_has)


async def test_an_impostor_cannot_send_back_what_it_was_sent():
    async def impostor(raw):
        raw.send(Challenge(versions=(1, 1), auth="secret", nonce=NONCE))
        said = await raw.message()
        who = Node().welcome()
        raw.send(
            Welcome(
                node=who.node, incarnation="", store_id="", storage_url="", metadata_url="",
                proof=said.proof,
            ), 1,
        )  # fmt: skip
        assert await raw.message() is None  # the client has left

    async with raw_node(impostor) as address, client(SECRET) as transport:
        with pytest.raises(InvalidRequest, match="could not prove"):
            await transport.connect(address, timeout_ms=LONG_MS)


@pytest.mark.parametrize(
    ("challenge", "text"),
    [
        (Challenge(versions=(2, 3), auth="none", nonce=NONCE), "versions 2 to 3.*upgrade"),
        (Challenge(versions=(1, 1), auth="none", nonce=b"short"), "nonce of 5 bytes"),
        (Challenge(versions=(1, 1), auth="kerberos", nonce=NONCE), "unknown kind .'kerberos'"),
        (Tell(name="x"), "no LogStore node: .*Tell in the hello"),
        (Refused(code="invalid_request", text="not you"), "refuses this client: not you"),
    ],
)
async def test_a_node_that_begins_wrongly(challenge, text):
    async def begin(raw):
        raw.send(challenge)
        await raw.message()

    async with raw_node(begin) as address, client() as transport:
        with pytest.raises(InvalidRequest, match=text):
            await transport.connect(address, timeout_ms=LONG_MS)


async def test_a_newer_node_that_still_speaks_this_version_is_understood():
    async def newer(raw):
        raw.send(Challenge(versions=(1, 9), auth="none", nonce=NONCE))
        said = await raw.message()
        assert said.version == 1
        asked = hello.challenge(b"", NONCE)
        raw.send(hello.welcome(Node().welcome(), said, asked, b"", 1 << 20), 1)
        await raw.message()

    async with raw_node(newer) as address, client() as transport:
        assert (await transport.connect(address, timeout_ms=LONG_MS)).welcome.node == "n1"


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"WP\x02" + bytes(50)])
async def test_a_server_that_is_no_node(said):
    async def other(raw):
        raw.writer.write(said)
        await raw.frame()

    async with raw_node(other) as address, client() as transport:
        with pytest.raises(InvalidRequest, match=f"{address} is no LogStore node"):
            await transport.connect(address, timeout_ms=LONG_MS)


async def test_a_server_that_says_nothing_or_leaves():
    async def silent(raw):
        await raw.message()

    async def leaves(raw):
        pass

    async with raw_node(silent) as address, client() as transport:
        with pytest.raises(Unavailable, match="no hello within 30 ms"):
            await transport.connect(address, timeout_ms=30)
    async with raw_node(leaves) as address, client() as transport:
        with pytest.raises(Unavailable, match="closed the connection, in the hello"):
            await transport.connect(address, timeout_ms=LONG_MS)


@pytest.mark.parametrize(
    "said",
    [
        Tell(name="x"),
        Status(text=b""),
        Hello(version=1, client="x" * hello.MAX_HELLO_BYTES, nonce=NONCE),
    ],
)
async def test_a_stranger_that_begins_wrongly_is_cut_off(said):
    async with served() as server:
        async with raw_client(server.address) as raw:
            assert isinstance(await raw.message(), Challenge)
            raw.send(said, 1)
            assert await raw.message() is None
        await let_in(server)


async def test_a_stranger_cannot_send_a_payload():
    node = Node()
    async with served(node) as server, raw_client(server.address) as raw:
        raw.send(Append(target=TARGET, name="x"), 1, b"payload")
        assert isinstance(await raw.message(), Challenge)
        assert await raw.message() is None
        assert not node.waiting


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (Hello(version=2, client="", nonce=NONCE), "version 2 is not spoken here"),
        (Hello(version=1, client="", nonce=b""), "nonce of 0 bytes"),
        (Hello(version=1, client="", nonce=NONCE), "not the one of this cluster"),
    ],
)
async def test_a_stranger_is_told_why_it_is_refused(said, text):
    async with served(access=SECRET) as server, raw_client(server.address) as raw:
        await raw.message()
        raw.send(said, 5)
        frame = await raw.frame()
        assert frame.request_id == 5
        assert isinstance(frame.message, Refused)
        assert text in frame.message.text
        assert await raw.message() is None


async def test_a_silent_stranger_is_cut_off_in_time():
    async with served(hello_timeout_ms=20) as server, raw_client(server.address) as raw:
        assert isinstance(await raw.message(), Challenge)
        assert await raw.message() is None


async def test_strangers_wait_in_line_while_others_are_in_the_hello():
    narrow = served(hello_timeout_ms=50, max_half_open=1)
    async with narrow as server, raw_client(server.address) as silent:
        assert isinstance(await silent.message(), Challenge)
        await let_in(server)  # once the silent one has been cut off
        assert await silent.message() is None


async def test_a_full_node_says_so():
    async with served(max_connections=1) as server:
        async with client() as transport, client() as late:
            await transport.connect(server.address, timeout_ms=LONG_MS)
            with pytest.raises(Unavailable, match="has 1 connections, and takes no more"):
                await late.connect(server.address, timeout_ms=LONG_MS)
        while server.connections:
            await asyncio.sleep(0)
        await let_in(server)


@pytest.mark.parametrize(
    ("said", "payload"),
    [
        (Hello(version=1, client="again", nonce=NONCE), b""),
        (Status(text=b""), b""),
        (Tell(name="x"), b"a payload"),
    ],
)
async def test_what_no_client_sends_ends_its_connection_alone(said, payload):
    async with served() as server, greeted_client(server.address) as raw, client() as transport:
        other = await transport.connect(server.address, timeout_ms=LONG_MS)
        raw.send(said, 2, payload)
        assert await raw.message() is None
        assert (await other.send(Ping(), timeout_ms=LONG_MS)).message == Done()


async def test_garbage_after_the_hello_ends_its_connection_alone():
    async with served() as server, greeted_client(server.address) as raw:
        raw.writer.write(bytes(1000))
        assert await raw.message() is None
        await let_in(server)


async def test_garbage_from_a_node_breaks_the_link():
    async def mad(raw):
        raw.send(hello.challenge(b"", NONCE))
        said = await raw.message()
        asked = hello.challenge(b"", NONCE)
        raw.send(hello.welcome(Node().welcome(), said, asked, b"", 1 << 20), 1)
        await raw.message()
        raw.writer.write(bytes(1000))
        await raw.message()

    async with raw_node(mad) as address, client() as transport:
        link = await transport.connect(address, timeout_ms=LONG_MS)
        with pytest.raises(Unavailable, match=r"n1.+no frame.+wrong magic"):
            await link.send(Tell(name="x"), timeout_ms=LONG_MS)
        assert not link.is_open


async def test_a_taken_port_is_refused():
    async with served() as server:
        port = int(server.address.rpartition(":")[2])
        with pytest.raises(Unavailable, match="in use"):
            await serve(Node(), "127.0.0.1", port, RUNTIME)


def test_addresses():
    assert split_address("node-1.cluster:7070") == ("node-1.cluster", 7070)
    assert split_address("[::1]:7070") == ("::1", 7070)
    for bad in ("", "host", "host:", ":7070", "host:x", "host:0", "host:65536", "host:-1"):
        with pytest.raises(InvalidRequest, match="host:port"):
            split_address(bad)


async def test_ipv6_has_its_brackets():
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        server = await serve(Node(), "::1", 0, RUNTIME)
    except Unavailable:
        pytest.skip("this machine has no IPv6 loopback")
    assert server.address.startswith("[::1]:")
    await let_in(server)
    await server.close()


class TestTls:
    @pytest.fixture(scope="class", name="files")
    @classmethod
    def make_files(cls, tmp_path_factory):
        return make_certificates(tmp_path_factory.mktemp("tls"))

    @pytest.fixture
    def node_access(self, files):
        """Asks for certificates of clients."""
        return Access(
            tls_ca=files.ca_file, tls_cert=files.server_certificate_file,
            tls_key=files.server_key_file,
        )  # fmt: skip

    async def test_with_and_without_certificates_of_clients(self, files, node_access):
        with_own = Access(
            tls_ca=files.ca_file, tls_cert=files.client_certificate_file,
            tls_key=files.client_key_file,
        )  # fmt: skip
        anybody = Access(tls_cert=files.server_certificate_file, tls_key=files.server_key_file)
        async with served(access=node_access) as server:
            await let_in(server, with_own)
        async with served(access=anybody) as server:
            await let_in(server, Access(tls_ca=files.ca_file))
            await let_in(server, with_own)

    async def test_a_client_without_certificate(self, files, node_access):
        only_ca = Access(tls_ca=files.ca_file)
        async with served(access=node_access) as server, client(only_ca) as transport:
            with pytest.raises((Unavailable, InvalidRequest), match="certificate"):
                await transport.connect(server.address, timeout_ms=LONG_MS)

    async def test_a_node_that_the_client_does_not_trust(self, tmp_path, node_access):
        other = Access(tls_ca=make_certificates(tmp_path).ca_file)
        async with served(access=node_access) as server, client(other) as transport:
            with pytest.raises(InvalidRequest, match=r"TLS failed.+VERIFY_FAILED"):
                await transport.connect(server.address, timeout_ms=LONG_MS)

    async def test_one_side_alone(self, files, node_access):
        async with served() as plain, served(access=node_access) as encrypted:
            async with client(Access(tls_ca=files.ca_file)) as transport:
                with pytest.raises(InvalidRequest, match="TLS failed"):
                    await transport.connect(plain.address, timeout_ms=LONG_MS)
            async with client() as transport:
                with pytest.raises(Unavailable, match="does it expect TLS"):
                    await transport.connect(encrypted.address, timeout_ms=50)

    async def test_files_that_do_not_serve(self, files, tmp_path):
        junk = tmp_path / "junk.pem"
        junk.write_text("nothing")
        with pytest.raises(InvalidRequest, match=r"junk\.pem: no usable"):
            async with client(Access(tls_ca=junk)):
                pass
        swapped = Access(tls_cert=files.server_certificate_file, tls_key=files.client_key_file)
        with pytest.raises(InvalidRequest, match=r"server\.pem: no usable"):
            async with served(access=swapped):
                pass
        with pytest.raises(InvalidRequest, match="needs tls_cert"):
            async with served(access=Access(tls_ca=files.ca_file)):
                pass
