"""What a development cluster consists of, and what of it lies in its directory (``cluster.json``)."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import msgspec

from woodpecker.errors import InvalidRequest, Unavailable
from woodpecker.programs import HOW_TO_GET_ETCD, HOW_TO_GET_S3, find_etcd, find_weed
from woodpecker.runtime.runtime import SystemRuntime

FILE = "cluster.json"
HOST = "127.0.0.1"
BUCKET, STORE_DIR, LOGS_DIR = "woodpecker", "store", "logs"
PORTS = range(12_000, 22_000)  # below those from which the system picks by itself
STREAMING_FROM, COORDINATORS_FROM = 20, 40  # with ports of one's own choice: so far from the first
HTTP_BESIDE = 100  # with ports of one's own choice: a node's HTTP is so far from its port
GRPC_BESIDE = 10_000  # each port P of SeaweedFS takes P + 10,000 as well
MAX_NODES = 16
ZONES = 3
DEFAULT_NODES = 3
COORDINATORS = 2  # one leads, one stands by
# Nobody is far away here: who is gone is noticed soon.
SESSION_TTL_MS, BEAT_MS = 6_000, 1_500
JOURNAL_FILE_BYTES = 144 << 20  # holds the largest batch; each node reserves two, perhaps in memory
_WEED_PORTS = ("s3.port", "master.port", "volume.port", "filer.port", "admin.port")


@dataclass(slots=True, kw_only=True)
class Node:
    """A LogStore node, streaming node or coordinator: its ports and zone, for ever."""

    name: str
    port: int
    http_port: int
    zone: str = ""


@dataclass(slots=True, kw_only=True)
class Layout:
    """The file. ``etcd`` and ``s3`` are ports by the name of the flag that takes them."""

    version: int = 1
    nodes: list[Node] = field(default_factory=list)
    streaming: list[Node] = field(default_factory=list)
    coordinators: list[Node] = field(default_factory=list)
    etcd: dict[str, int] = field(default_factory=dict)
    s3: dict[str, int] = field(default_factory=dict)

    @property
    def ports(self) -> dict[int, str]:
        """All ports with the name of their process."""
        found = dict.fromkeys(self.etcd.values(), "etcd")
        for port in self.s3.values():
            found |= {port: "s3", port + GRPC_BESIDE: "s3"}
        for node in self.members:
            found |= {node.port: node.name, node.http_port: node.name}
        return found

    @property
    def members(self) -> list[Node]:
        """All nodes and coordinators."""
        return [*self.nodes, *self.streaming, *self.coordinators]

    @property
    def url(self) -> str:
        """What clients connect to."""
        return "wp://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    @property
    def streaming_addresses(self) -> list[str]:
        """Where the streaming service can be reached."""
        return [f"{HOST}:{node.port}" for node in (*self.streaming, *self.coordinators)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One process of the cluster."""

    name: str
    role: str  # "logstore", "streaming", "coordinator", "etcd", "s3"
    address: str
    argv: tuple[str, ...]
    ready_url: str  # answers 200 when it serves
    log: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line asks for; None and False: as it was before, or the default."""

    nodes: int | None = None
    streaming: int | None = None
    port: int | None = None  # of the first node; the others follow
    etcd: bool = False
    s3: bool = False
    zones: bool = False


def lay_out(directory: Path, wanted: Wanted) -> Layout:
    """The layout of a new directory, or the one that lies there, with more nodes if more are wanted.

    Raises: InvalidRequest: not a cluster's directory, or one that was made differently; or a program is
    not installed. Unavailable: somebody else has a port of it; the directory is as it was.
    """
    path = directory / FILE
    if path.exists():
        layout = _read(path)
        _refuse_changes(directory, layout, wanted)
    else:
        if any(directory.iterdir()):
            raise InvalidRequest(f"{directory} is not empty: use a new directory for a new cluster")
        layout = Layout()
        _require_programs(etcd=wanted.etcd, s3=wanted.s3)
        _require_grpc(streaming=bool(wanted.streaming))
        if wanted.etcd:
            for name in ("client", "peer", "health"):
                layout.etcd[name] = _free_port(layout)
        for name in _WEED_PORTS if wanted.s3 else ():
            layout.s3[name] = _free_port(layout, beside=GRPC_BESIDE)
    has_zones = wanted.zones or any(node.zone for node in layout.nodes)

    def extend(members: list[Node], name: str, count: int, first: int | None) -> None:
        """Members up to that number; ``first``: port of the first one, None: any that are free."""
        for index in range(len(members), count):
            port = _free_port(layout, beside=HTTP_BESIDE) if first is None else first + index
            zone = f"zone-{index % ZONES + 1}" if has_zones else ""
            members.append(
                Node(name=f"{name}-{index + 1}", port=port, http_port=port + HTTP_BESIDE, zone=zone)
            )

    first = _first_port(layout, wanted)
    extend(layout.nodes, "node", wanted.nodes or len(layout.nodes) or DEFAULT_NODES, first)
    count = wanted.streaming or len(layout.streaming)
    extend(layout.streaming, "stream", count, _plus(first, STREAMING_FROM))
    coordinators = COORDINATORS if layout.streaming else 0
    extend(layout.coordinators, "coordinator", coordinators, _plus(first, COORDINATORS_FROM))
    _check_ports(directory, layout)
    _write(path, layout)
    return layout


def _first_port(layout: Layout, wanted: Wanted) -> int | None:
    """Of one's own choice, now or when the cluster was made."""
    if wanted.port is not None:
        return wanted.port
    if not layout.nodes or layout.nodes[0].port in PORTS:
        return None
    return layout.nodes[0].port


def _plus(port: int | None, more: int) -> int | None:
    return None if port is None else port + more


def _read(path: Path) -> Layout:
    try:
        layout = msgspec.json.decode(path.read_bytes(), type=Layout)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidRequest(f"{path} is not the file of a development cluster: {error}") from None
    if layout.version != Layout().version:
        raise InvalidRequest(f"{path} was written by another version of Woodpecker")
    return layout


def _write(path: Path, layout: Layout) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(layout), indent=2) + b"\n")
    new.replace(path)


def _refuse_changes(directory: Path, layout: Layout, wanted: Wanted) -> None:
    wrong = []
    if wanted.nodes is not None and wanted.nodes < len(layout.nodes):
        wrong.append(f"it has {len(layout.nodes)} nodes")
    if wanted.streaming is not None and wanted.streaming < len(layout.streaming):
        wrong.append(f"it has {len(layout.streaming)} streaming nodes")
    if wanted.port not in {None, layout.nodes[0].port}:
        wrong.append(f"its first node has port {layout.nodes[0].port}")
    if wanted.etcd and not layout.etcd:
        wrong.append("it was made without --etcd")
    if wanted.s3 and not layout.s3:
        wrong.append("it was made without --s3")
    if wanted.zones and not all(node.zone for node in layout.nodes):
        wrong.append("it was made without --zones")
    if wrong:
        raise InvalidRequest(f"{directory} holds another cluster: {', '.join(wrong)}")
    _require_programs(etcd=bool(layout.etcd), s3=bool(layout.s3))
    _require_grpc(streaming=bool(layout.streaming or wanted.streaming))


def _require_grpc(*, streaming: bool) -> None:
    if streaming and find_spec("grpc_reflection") is None:
        raise InvalidRequest("--streaming needs an extra: pip install 'woodpecker-wal[grpc]'")


def _require_programs(*, etcd: bool, s3: bool) -> None:
    if etcd and find_etcd() is None:
        raise InvalidRequest(HOW_TO_GET_ETCD)
    if etcd and find_spec("grpc") is None:
        raise InvalidRequest("--etcd needs an extra: pip install 'woodpecker-wal[etcd]'")
    if s3 and find_weed() is None:
        raise InvalidRequest(HOW_TO_GET_S3)


# --- ports ---


def _free_port(layout: Layout, *, beside: int = 0) -> int:
    taken, runtime = set(layout.ports), SystemRuntime()
    for _ in range(1000):
        port = PORTS[int(runtime.random() * len(PORTS))]
        if taken.isdisjoint({port, port + beside}) and all(map(_is_free, {port, port + beside})):
            return port
    raise Unavailable("no free port on the loopback interface: end other servers and try again")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _check_ports(directory: Path, layout: Layout) -> None:
    for port, name in layout.ports.items():
        if not _is_free(port):
            raise Unavailable(
                f"port {port} of {name} is taken: does a process of the cluster in {directory} still "
                "run? End it, or whatever else listens there"
            )


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
    """One cluster command per directory. Raises: Unavailable, InvalidRequest: it cannot be made."""
    import fcntl

    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(
            f"--dir {directory} cannot be made: {error.strerror}; name another directory"
        ) from None
    lock = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Unavailable(
                f"a development cluster runs in {directory} already: end it, or name another --dir"
            ) from None
        yield
    finally:
        os.close(lock)


# --- programs ---


def stores(directory: Path, layout: Layout) -> list[Program]:
    """What must run before the nodes."""
    found = []
    if layout.etcd:
        found.append(_etcd(directory, layout.etcd))
    if layout.s3:
        found.append(_weed(directory, layout.s3))
    return found


def nodes(directory: Path, layout: Layout) -> list[Program]:
    """The LogStore nodes."""
    return [_node(directory, layout, node) for node in layout.nodes]


def _node(directory: Path, layout: Layout, node: Node) -> Program:
    address, http = f"{HOST}:{node.port}", f"{HOST}:{node.http_port}"
    flags = {
        "node": node.name,
        "dir": str(directory / node.name),
        "listen": address,
        "advertise": address,
        "http": http,
        "store": _store_url(directory, layout),
        "journal-file-bytes": str(JOURNAL_FILE_BYTES),
    }
    if layout.etcd:
        flags["metadata"] = f"etcd://{HOST}:{layout.etcd['client']}/woodpecker"
    if node.zone:
        flags["zone"] = node.zone
    return Program(
        name=node.name,
        role="logstore",
        address=address,
        argv=(sys.executable, "-m", "woodpecker", "logstore", "serve", *_argv(flags)),
        ready_url=f"http://{http}/readyz",
        log=directory / LOGS_DIR / f"{node.name}.log",
    )


def streaming(directory: Path, layout: Layout) -> list[Program]:
    """Coordinators and streaming nodes; their logs are of mode quorum."""
    return [
        *(_streaming(directory, layout, node, "coordinator") for node in layout.coordinators),
        *(_streaming(directory, layout, node, "streaming") for node in layout.streaming),
    ]


def _streaming(directory: Path, layout: Layout, member: Node, role: str) -> Program:
    address, http = f"{HOST}:{member.port}", f"{HOST}:{member.http_port}"
    flags = {
        "listen": address,
        "advertise": address,
        "http": http,
        "store": layout.url,
        "session-ttl-ms": str(SESSION_TTL_MS),
        "beat-ms": str(BEAT_MS),
    }
    if role == "streaming":
        flags["node"] = member.name
        if member.zone:
            flags["zone"] = member.zone
    command = "node" if role == "streaming" else "coordinator"
    return Program(
        name=member.name,
        role=role,
        address=address,
        argv=(sys.executable, "-m", "woodpecker", command, "serve", *_argv(flags)),
        ready_url=f"http://{http}/readyz",
        log=directory / LOGS_DIR / f"{member.name}.log",
    )


def _argv(flags: dict[str, str]) -> list[str]:
    return [word for name, value in flags.items() for word in (f"--{name}", value)]


def _store_url(directory: Path, layout: Layout) -> str:
    if not layout.s3:
        return (directory / STORE_DIR).as_uri()
    return f"s3://{BUCKET}/store?endpoint=http://{HOST}:{layout.s3['s3.port']}&anonymous=true"


def _etcd(directory: Path, ports: dict[str, int]) -> Program:
    program = find_etcd()
    assert program is not None
    client, peer, health = (f"http://{HOST}:{ports[name]}" for name in ("client", "peer", "health"))
    flags = {
        "name": "etcd",
        "data-dir": str(directory / "etcd"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-metrics-urls": health,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"etcd={peer}",
        "logger": "zap",
        "log-level": "warn",
    }
    return Program(
        name="etcd",
        role="etcd",
        address=f"{HOST}:{ports['client']}",
        argv=(str(program), *(f"--{name}={value}" for name, value in flags.items())),
        ready_url=f"{health}/health",
        log=directory / LOGS_DIR / "etcd.log",
    )


def _weed(directory: Path, ports: dict[str, int]) -> Program:
    program = find_weed()
    assert program is not None
    data = directory / "s3"
    data.mkdir(exist_ok=True)
    return Program(
        name="s3",
        role="s3",
        address=f"{HOST}:{ports['s3.port']}",
        argv=(
            str(program), "mini", f"-dir={data}", f"-ip={HOST}", f"-ip.bind={HOST}",
            f"-bucket={BUCKET}", "-webdav=false", "-admin.ui=false", "-master.telemetry=false",
            "-s3.port.iceberg=0", "-s3.port.lance=0",
            *(f"-{name}={port}" for name, port in ports.items()),
        ),
        ready_url=f"http://{HOST}:{ports['s3.port']}/{BUCKET}?list-type=2",
        log=directory / LOGS_DIR / "s3.log",
    )  # fmt: skip
