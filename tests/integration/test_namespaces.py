"""Networks of namespaces: who reaches whom, cuts in one direction, and that nothing stays behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from woodpecker.testing.servers.network import Network, why_not
from woodpecker.testing.servers.process import Host

SHORT_S = 0.3


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def network() -> Iterator[Network]:
    with Network(["a", "b"]) as network:
        yield network


def connected(network: Network, client: str, server: str) -> tuple[socket.socket, socket.socket]:
    listener = network.listener(server)
    listener.setblocking(True)
    listener.listen()
    near = network.open_socket(client)
    near.settimeout(SHORT_S)
    try:
        near.connect(listener.getsockname())
        far, _ = listener.accept()
    except BaseException:
        near.close()
        raise
    finally:
        listener.close()
    far.settimeout(SHORT_S)
    return near, far


def test_each_host_reaches_the_other_and_no_more(network: Network) -> None:
    near, far = connected(network, "a", "b")
    assert near.getpeername()[0] == network.address("b")
    near.sendall(b"there")
    assert far.recv(10) == b"there"
    far.sendall(b"back")
    assert near.recv(10) == b"back"
    near.close()
    far.close()
    outside = network.open_socket("a")
    outside.settimeout(SHORT_S)
    with pytest.raises(OSError, match=r"unreachable|timed out|refused"):
        outside.connect(("192.0.2.1", 9))
    outside.close()


def test_a_cut_is_silent_and_of_one_direction(network: Network) -> None:
    near, far = connected(network, "a", "b")
    network.cut("b", "a")
    near.sendall(b"one way")
    assert far.recv(10) == b"one way"
    far.sendall(b"swallowed")  # its sender hears nothing of it
    with pytest.raises(TimeoutError):
        near.recv(10)
    with pytest.raises(TimeoutError):
        connected(network, "a", "b")
    network.mend("b", "a")
    near.settimeout(10)
    assert near.recv(10) == b"swallowed"  # TCP sends it again
    near.close()
    far.close()


def test_a_process_of_a_host_is_there_and_dies_with_its_parent() -> None:
    """The whole run is killed: the process in the namespace ends, and with it the namespace."""
    script = """
import subprocess, sys, time
from woodpecker.testing.servers.network import Network
with Network(["a"]) as network:
    host = network.host("a")
    argv = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]
    subprocess.Popen(host.command(argv), pass_fds=host.pass_fds)
    time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert os.readlink(f"/proc/{child}/ns/net") != os.readlink("/proc/self/ns/net")
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and "Z" not in _state(child):
        assert time.monotonic() < until, "it outlives its parent"
        time.sleep(0.01)
    parent.stdout.close()


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_tied_process_does_not_start_for_a_parent_that_is_gone() -> None:
    argv = Host(is_tied=True).command([sys.executable, "-c", "print('started')"])
    parent = argv.index(str(os.getpid()))
    argv[parent] = "1"
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "parent" in done.stderr and "started" not in done.stdout
