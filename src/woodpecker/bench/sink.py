"""What a node can do at best: receives blocks over TCP, writes them durably, says so, and nothing else.

``serve`` runs in a process of its own. A connection begins with ``SETUP``: bytes of a block, index of the
method, whether the next block is received while one is written, whether the blocks of the file are fresh
(``SyncedFile``). Then come blocks without any frame; each is answered with one byte once it is durable.
"""

from __future__ import annotations

import mmap
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from woodpecker.bench.raw_file import SMALL_BYTES, SyncedFile

SETUP = struct.Struct("<IBBB")
BUFFERS = 8
SOCKET_BYTES = 4 << 20


def serve(path: Path) -> None:
    """Serve one connection after the other until killed; prints the methods and the port first."""
    files = [SyncedFile(path), SyncedFile(path.with_suffix(".fresh"), is_fresh=True)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], *files[0].methods, flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                _tune(connection)
                _serve(connection, files)


def _tune(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)


def _serve(connection: socket.socket, files: Sequence[SyncedFile]) -> None:
    setup = memoryview(bytearray(SETUP.size))
    if not _receive(connection, setup):
        return
    size, method, is_overlapped, is_fresh = SETUP.unpack(setup)
    file = files[is_fresh]
    pages = -(-size // SMALL_BYTES) * SMALL_BYTES
    if is_overlapped:
        _overlapped(connection, file, file.methods[method], size, pages)
        return
    buffer = memoryview(mmap.mmap(-1, pages))  # aligned, as direct writes need it
    while _receive(connection, buffer[:size]):
        file.write(file.methods[method], buffer)
        with suppress(ConnectionError):
            connection.sendall(b"\1")


def _overlapped(
    connection: socket.socket, file: SyncedFile, method: str, size: int, pages: int
) -> None:
    free: SimpleQueue[memoryview] = SimpleQueue()
    full: SimpleQueue[memoryview | None] = SimpleQueue()
    for _ in range(BUFFERS):
        free.put(memoryview(mmap.mmap(-1, pages)))

    def write() -> None:
        while (buffer := full.get()) is not None:
            file.write(method, buffer)
            free.put(buffer)
            with suppress(ConnectionError):  # it has enough
                connection.sendall(b"\1")

    writer = threading.Thread(target=write)
    writer.start()
    while _receive(connection, (buffer := free.get())[:size]):
        full.put(buffer)
    full.put(None)
    writer.join()


def _receive(connection: socket.socket, place: memoryview) -> bool:
    """Fill ``place``; False: the other side has closed."""
    while place:
        try:
            count = connection.recv_into(place)
        except ConnectionError:
            return False
        if not count:
            return False
        place = place[count:]
    return True
