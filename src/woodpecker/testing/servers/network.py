"""A network of hosts on this machine: network namespaces behind one router, cut in either direction.

The namespaces have no names: descriptors of this process and the processes inside keep them. When all have
ended, however they ended, namespaces, interfaces and routes are gone; nothing has to be cleaned up. Nothing
outside of them is touched. Linux, root and iproute2; ``why_not`` says what is missing.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Self, TypeVar

from woodpecker.errors import Unavailable
from woodpecker.testing.servers.launch import CLONE_NEWNET
from woodpecker.testing.servers.process import Host

SUBNET = "198.18.{}.{}"  # RFC 2544: for tests of networks; here only inside the namespaces
ROUTER, HOST = 1, 2

T = TypeVar("T")


class Network:
    """Hosts by name, each with an address of its own and a route to every other one; ``with``."""

    def __init__(self, names: Sequence[str]) -> None:
        self._numbers = {name: number for number, name in enumerate(names, 1)}
        self._cuts: set[tuple[str, str]] = set()
        self._fds: dict[str, int] = {}
        self._router = -1

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for fd in (self._router, *self._fds.values()):
            if fd >= 0:
                os.close(fd)
        self._router, self._fds = -1, {}

    def host(self, name: str) -> Host:
        """Where a server of that host runs."""
        return Host(address=self.address(name), netns=self._fds[name], is_tied=True)

    def address(self, name: str) -> str:
        """Its one address."""
        return SUBNET.format(self._numbers[name], HOST)

    def enter(self, name: str) -> None:
        """The calling thread, and what it starts from now on, is on that host."""
        _set_namespace(self._fds[name])

    def open_socket(self, name: str) -> socket.socket:
        """A TCP socket of that host, to be used from anywhere."""
        return self._on(name, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))

    def listener(self, name: str) -> socket.socket:
        """One that accepts, on a free port of that host."""
        listener = self.open_socket(name)
        listener.bind((self.address(name), 0))
        listener.settimeout(0)
        return listener

    def cut(self, sender: str, receiver: str) -> None:
        """Swallow whatever ``sender`` sends to ``receiver``; the other direction is not touched."""
        if (sender, receiver) not in self._cuts:
            self._cuts.add((sender, receiver))
            self._rule("add", sender, receiver)

    def mend(self, sender: str, receiver: str) -> None:
        """Undo ``cut``."""
        if (sender, receiver) in self._cuts:
            self._cuts.remove((sender, receiver))
            self._rule("del", sender, receiver)

    def heal(self) -> None:
        """Undo all cuts."""
        for sender, receiver in list(self._cuts):
            self.mend(sender, receiver)

    def _build(self) -> None:
        self._router = _new_namespace()
        _run(self._router, ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
        for name, number in self._numbers.items():
            fd = self._fds[name] = _new_namespace()
            router = SUBNET.format(number, ROUTER)
            peer = f"/proc/{os.getpid()}/fd/{fd}"
            self._ip(
                self._router,
                f"link add host{number} type veth peer name eth0 netns {peer}",
                f"addr add {router}/24 dev host{number}",
                f"link set host{number} up",
            )
            self._ip(
                fd,
                "link set lo up",
                f"addr add {self.address(name)}/24 dev eth0",
                "link set eth0 up",
                f"route add default via {router}",
            )

    def _rule(self, verb: str, sender: str, receiver: str) -> None:
        pair = f"from {self.address(sender)} to {self.address(receiver)}"
        self._ip(self._router, f"rule {verb} {pair} blackhole")

    def _ip(self, fd: int, *commands: str) -> None:
        _run(fd, ["ip", "-batch", "-"], "\n".join(commands) + "\n")

    def _on(self, name: str, make: Callable[[], T]) -> T:
        fd = self._fds[name]

        def there() -> T:
            _set_namespace(fd)
            return make()

        return _in_thread(there)


def why_not() -> str | None:
    """What is missing for ``Network``; None: nothing."""
    how = "run as root on Linux, with iproute2 installed (apt install iproute2)"
    if shutil.which("ip") is None:
        return f"no network namespaces: there is no program ip; {how}"
    try:
        with Network(["a", "b"]) as network:
            network.cut("a", "b")
    except (OSError, AttributeError, Unavailable) as error:
        return f"no network namespaces: {error}; {how}"
    return None


def _new_namespace() -> int:
    """A descriptor of a new one. Raises: OSError."""

    def make() -> int:
        _check(_libc().unshare(CLONE_NEWNET), "unshare")
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return _in_thread(make)


def _set_namespace(fd: int) -> None:
    _check(_libc().setns(fd, CLONE_NEWNET), "setns")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(answer: int, what: str) -> None:
    if answer:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _in_thread(make: Callable[[], T]) -> T:
    """A thread of its own may change its namespace: it ends with it."""
    made: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            made.append(make())
        except BaseException as error:  # noqa: BLE001  it is raised in the caller's thread
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def _run(fd: int, argv: Sequence[str], text: str = "") -> None:
    host = Host(netns=fd)
    done = subprocess.run(
        host.command(argv), input=text, pass_fds=host.pass_fds,
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    if done.returncode:
        raise Unavailable(f"{' '.join(argv)}: {done.stderr.strip()} ({text.strip()})")
