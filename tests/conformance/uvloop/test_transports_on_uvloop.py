"""The suite of transports where sockets are uvloop's."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from tests.conformance.test_transports import TcpPlace, files, tls_place  # noqa: F401  a fixture

from woodpecker.testing.conformance.transport import TransportSuite


class TestTcpOnUvloop(TransportSuite):
    @pytest.fixture
    def place(self):
        return TcpPlace()

    async def test_it_is_uvloop(self):
        assert isinstance(asyncio.get_running_loop(), uvloop.Loop)


class TestTlsOnUvloop(TransportSuite):
    @pytest.fixture
    def place(self, files):  # noqa: F811  the fixture
        return tls_place(files)
