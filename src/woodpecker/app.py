"""Composition root: from URLs and settings to a client. The one place that picks adapters."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from woodpecker import access as access_module
from woodpecker.access import make_access
from woodpecker.app_cluster import Cluster
from woodpecker.client.client import Client
from woodpecker.client.environment import Environment
from woodpecker.codec.keys import STORE_MARKER
from woodpecker.core.ids import Kind
from woodpecker.errors import InvalidRequest, NotFound, Unavailable, WoodpeckerError
from woodpecker.filesystems import is_local
from woodpecker.metadata.base import MetadataStore
from woodpecker.metadata.catalog import Catalog
from woodpecker.metadata.instrumented import InstrumentedMetadata
from woodpecker.metadata.memory import MemoryMetadata, MemoryRecords
from woodpecker.metadata.objects import ObjectMetadata
from woodpecker.metadata.sqlite import SqliteMetadata
from woodpecker.observability.base import SILENT, Observer
from woodpecker.runtime.runtime import Runtime, SystemRuntime
from woodpecker.segments.base import SegmentStore
from woodpecker.segments.file import FileSegments
from woodpecker.segments.object import ObjectSegments
from woodpecker.storage.base import ObjectStore
from woodpecker.storage.cloud import CloudObjectStore
from woodpecker.storage.instrumented import InstrumentedStore
from woodpecker.storage.local import LocalObjectStore
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore
from woodpecker.storage.url import OptionValue, StoreSettings, parse_store_url
from woodpecker.store_marker import check_metadata, check_store, store_at

SQLITE_FILE, OBJECTS_DIR, BUFFER_DIR = "metadata.sqlite", "objects", "buffer"
_OWN_ENTRIES = {OBJECTS_DIR, BUFFER_DIR, SQLITE_FILE, SQLITE_FILE + "-wal", SQLITE_FILE + "-shm"}
_MARKS = (
    SQLITE_FILE,
    f"{OBJECTS_DIR}/{STORE_MARKER}",
)  # one of them is there once there is a store
REACH_TIMEOUT_S = 10.0  # for a bucket that nodes told of; without it the nodes are asked
_OF_THE_SYSTEM = {"lost+found"}  # what a fresh file system holds

_shared_memory: dict[str, tuple[MemoryBucket, MemoryRecords]] = {}


def connect(
    url: str | os.PathLike[str],
    *,
    metadata: str | None = None,
    buffer: str | None = None,
    read_only: bool = False,
    background: bool = True,
    observer: Observer = SILENT,
    runtime: Runtime | None = None,
    secret: str | bytes | None = None,
    secret_file: str | os.PathLike[str] | None = None,
    tls_ca: str | os.PathLike[str] | None = None,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
    zone: str | None = None,
    **options: OptionValue,
) -> Client:
    """Connect to a store; ``async with`` the result.

    Args:
        url: ``file:///dir``, ``s3://bucket/prefix``, ``gs://``, ``az://``, ``memory://[name]``, or a
            path. Options may stand in its query: ``s3://b/p?endpoint=...&region=...``. Or
            ``wp://host:port,host:port``: any of these LogStore nodes tells where the store is.
        metadata: ``etcd://h1:2379,h2:2379/prefix``; default: SQLite in a local directory, conditional
            writes in a bucket or on a network file system; for ``wp://`` what the nodes say.
        buffer: ``file:///fast/dir``: logs of a bucket keep their open segments there (kind ``file``).
        read_only: never write anything, not even metadata.
        background: run sealing, retention and garbage collection while the client is open.
        observer: takes metrics and traces (``woodpecker.observability``); silent by default.
        secret, secret_file: what LogStore nodes and their clients share; default: the variable
            ``WOODPECKER_SECRET``, or the file in ``WOODPECKER_SECRET_FILE``, else none.
        tls_ca, tls_cert, tls_key: PEM files for connections to nodes; any of them turns TLS on.
        zone: nodes of this zone are read first; default: the variable ``WOODPECKER_ZONE``.
        options: options of the storage URL by name; they win over its query.
    Raises:
        InvalidRequest: unknown scheme or option, contradictory settings. On opening also: not a store,
        written by a newer version, two stores with one root, credentials refused; NotFound: no such
        bucket, or no store there and ``read_only``; Unavailable.
    """
    access = make_access(
        os.environ,
        secret=secret,
        secret_file=secret_file,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        zone=zone,
    )
    wishes = _Wishes(
        metadata=metadata,
        buffer=None if buffer is None else _buffer_directory(buffer),
        read_only=read_only,
        observer=observer,
        runtime=runtime or SystemRuntime(),
        options=options,
    )
    text = as_url(url)
    if text.startswith(access_module.SCHEME):
        nodes = access_module.nodes_of(text)
        by_hello = _ByHello(wishes, Cluster(access, wishes.runtime, nodes))
        return Client(by_hello.open, by_hello.close, background=background)
    settings = parse_store_url(text, **options)
    parts = _Parts(settings, wishes, Cluster(access, wishes.runtime))
    return Client(parts.open, parts.close, background=background)


def cluster_of(client: Client) -> Cluster:
    """The LogStore nodes of an open client's store, for the command line and tools."""
    parts = client.environment.places
    assert isinstance(parts, _Parts), "made by connect"
    return parts.cluster


def open_objects(url: str | os.PathLike[str], **options: OptionValue) -> ObjectStore:
    """The bare object store of a URL, whether a Woodpecker store is there or not; for probing."""
    return _open_objects(parse_store_url(as_url(url), **options), SystemRuntime(), read_only=False)


def public_store_url(url: str | os.PathLike[str]) -> str:
    """The URL of a store as others can use it: without secrets, and without whose credentials to take."""
    settings = parse_store_url(as_url(url))
    return replace(settings, access_key_id="", profile="", service_account="").public_url


def public_metadata_url(url: str | None) -> str:
    """The URL of a metadata store as others can use it: without user, password and client key; "" for none."""
    if url is None:
        return ""
    parts = urlsplit(url)
    shared = [
        option
        for option in parts.query.split("&")
        if option.partition("=")[0] not in {"cert_file", "key_file", ""}
    ]
    if shared != parts.query.split("&") and parts.query and not any("tls=" in o for o in shared):
        shared.append("tls=true")
    return urlunsplit(
        (parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "&".join(shared), "")
    )


def as_url(url: str | os.PathLike[str]) -> str:
    """A URL as it is; a path as ``file://``."""
    text = os.fspath(url)
    if "://" in text:
        return text
    return Path(text).expanduser().absolute().as_uri()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wishes:
    """What the caller of ``connect`` asked for, beside the URL."""

    metadata: str | None
    buffer: Path | None
    read_only: bool
    observer: Observer
    runtime: Runtime
    options: Mapping[str, OptionValue]


class _ByHello:
    """A client of ``wp://``: what the store is, a node tells when the client is opened."""

    def __init__(self, wishes: _Wishes, cluster: Cluster) -> None:
        self._wishes = wishes
        self._cluster = cluster
        self._parts: _Parts | None = None

    async def open(self) -> Environment:
        try:
            welcome = await self._cluster.greet()
            settings = parse_store_url(welcome.storage_url, **self._wishes.options)
            told = self._wishes.metadata or welcome.metadata_url or None
            wishes = replace(self._wishes, metadata=told)
            self._parts = _Parts(settings, wishes, self._cluster, store_id=welcome.store_id)
        except BaseException:
            await self._cluster.close()
            raise
        return await self._parts.open()

    async def close(self) -> None:
        if self._parts is not None:
            await self._parts.close()


class _Parts:
    """The adapters of one client: made when it is opened, closed with it.

    Args:
        store_id: the store that LogStore nodes told of; None: nobody was asked.
    """

    def __init__(
        self,
        settings: StoreSettings,
        wishes: _Wishes,
        cluster: Cluster,
        *,
        store_id: str | None = None,
    ) -> None:
        self._settings = settings
        self._metadata_url = wishes.metadata
        self._buffer = wishes.buffer
        self._read_only = wishes.read_only
        self._observer = wishes.observer
        self._runtime = wishes.runtime
        self.cluster = cluster
        self._store_id = store_id
        self._has_rights = True  # False: the store is read through nodes
        self._objects: dict[str, ObjectStore] = {}
        self._segments: dict[tuple[Kind, str], SegmentStore] = {}
        self._metadata: MetadataStore | None = None
        self._is_network = settings.scheme == "file" and not is_local(Path(settings.path))

    async def open(self) -> Environment:
        try:
            if self._store_id is None:
                metadata = await self._open_named()
            else:
                metadata = await self._open_told(self._store_id)
        except BaseException:
            await self.close()
            raise
        return Environment(
            url=self._settings.url,
            runtime=self._runtime,
            observer=self._observer,
            catalog=Catalog(metadata, self._runtime, read_only=self._read_only),
            places=self,
            read_only=self._read_only,
            has_rights=self._has_rights,
        )

    async def _open_named(self) -> MetadataStore:
        """The store that the caller named: made, if nothing is there."""
        if self._settings.scheme == "file":
            _check_directory(Path(self._settings.path), read_only=self._read_only)
        objects = self.objects("")
        metadata = self._open_metadata(objects)
        if not self._read_only:
            await self._probe(objects)
        await check_store(
            objects, metadata, new_id=self._runtime.token(), may_create=not self._read_only
        )
        return metadata

    async def _open_told(self, store_id: str) -> MetadataStore:
        """The store that LogStore nodes told of: nothing is made, and they read it where we may not."""
        refusal = await self._refusal(store_id)
        if refusal is not None:
            self._has_rights = False
            await self._objects.pop("").close()
        metadata = self._open_metadata(self.objects(""))
        if refusal is not None and self._metadata_url is None:
            raise InvalidRequest(
                f"the metadata of this store lies where its objects are, and {self._settings.url} cannot "
                f"be used from here: {refusal}. Give this client the same credentials or directory as "
                "the nodes have, or keep metadata in etcd"
            ) from refusal
        await check_metadata(metadata, store_id)
        return metadata

    async def _refusal(self, store_id: str) -> WoodpeckerError | None:
        """Why the store at the URL that the nodes told is not there for us; None: it is."""
        objects, path = self.objects(""), Path(self._settings.path)
        if self._settings.scheme == "file" and not (path / OBJECTS_DIR).is_dir():
            return NotFound(f"there is no store at {path} on this machine")
        try:
            async with asyncio.timeout(REACH_TIMEOUT_S):
                if await store_at(objects) != store_id:
                    return NotFound(f"another store is at {objects.url}")
                if not self._read_only:
                    await objects.probe("create_if_absent")  # the nodes know that it works: may we?
        except TimeoutError:
            return Unavailable(f"{objects.url} does not answer")
        except (InvalidRequest, NotFound, Unavailable) as error:
            return error
        return None

    async def _probe(self, objects: ObjectStore) -> None:
        """Does the store honour the conditions everything rests on? Asked once, before anything else."""
        holds_metadata = isinstance(self._metadata, ObjectMetadata)
        if not holds_metadata and self._settings.scheme in {"file", "memory"}:
            return  # links on a local disk, and our own memory
        fault = await objects.probe("create_if_absent")
        if fault is not None:
            raise InvalidRequest(f"no Woodpecker store can be kept here: {fault}")
        if holds_metadata:
            fault = await objects.probe("compare_and_swap")
            if fault is not None:
                raise InvalidRequest(f"metadata cannot be kept in the bucket itself: {fault}")

    async def close(self) -> None:
        for segments in self._segments.values():
            await segments.close()
        await self.cluster.close()
        if self._metadata is not None:
            await self._metadata.close()
        for objects in self._objects.values():
            await objects.close()

    # --- Places ---

    @property
    def default_kind(self) -> Kind:
        if self._store_id is not None:
            return Kind.QUORUM
        is_file = self._buffer is not None or (
            self._settings.scheme == "file" and not self._is_network
        )
        return Kind.FILE if is_file else Kind.OBJECT

    def check_kind(self, kind: Kind, storage: str) -> None:
        if kind is Kind.QUORUM and self._settings.scheme == "memory":
            raise InvalidRequest("mode 'quorum' needs LogStore nodes: no node can reach memory://")
        if kind is not Kind.QUORUM and not self._has_rights:
            raise InvalidRequest(
                f"segments of mode '{kind}' need rights on {self._settings.url}, which this client has not"
            )
        if kind is Kind.FILE and self._buffer_for(storage) is None:
            raise InvalidRequest(
                "mode 'file' needs a local directory for open segments: pass buffer='file:///dir'"
            )

    async def admit(self, storage: str) -> str:
        if not self._has_rights:
            raise InvalidRequest(
                "this client has no rights on buckets: let another one alter storage"
            )
        settings = parse_store_url(storage)
        if settings.url == self._settings.url:
            return ""
        if settings.public_url in self._objects:
            return settings.public_url
        objects = self._open_objects(settings)
        fault = await objects.probe("create_if_absent")
        if fault is not None:
            await objects.close()
            raise InvalidRequest(f"{objects.url} cannot hold a log: {fault}")
        if settings.public_url in self._objects:  # another task was faster
            await objects.close()
        else:
            self._objects[settings.public_url] = objects
        return settings.public_url

    def objects(self, storage: str) -> ObjectStore:
        if storage not in self._objects:
            settings = self._settings if storage == "" else parse_store_url(storage)
            self._objects[storage] = (
                self._open_objects(settings)
                if self._has_rights
                else self.cluster.objects(settings.url, storage)
            )
        return self._objects[storage]

    def segments(self, kind: Kind, storage: str) -> SegmentStore:
        self.check_kind(kind, storage)
        if kind is Kind.QUORUM:
            return self.cluster.segments
        directory = self._buffer_for(storage)
        place = str(directory) if kind is Kind.FILE else storage
        if (kind, place) not in self._segments:
            self._segments[kind, place] = (
                FileSegments(directory, self._runtime, read_only=self._read_only)
                if kind is Kind.FILE and directory is not None
                else ObjectSegments(self.objects(storage), self._runtime)
            )
        return self._segments[kind, place]

    def _buffer_for(self, storage: str) -> Path | None:
        """Where open segments of kind file lie; one place for all storages of this client."""
        if self._buffer is not None:
            return self._buffer
        if self._settings.scheme == "file" and not self._is_network:
            return Path(self._settings.path) / BUFFER_DIR
        settings = None if storage == "" else parse_store_url(storage)
        if settings is not None and settings.scheme == "file":
            return Path(settings.path) / BUFFER_DIR
        return None

    # --- adapters ---

    def _open_objects(self, settings: StoreSettings) -> ObjectStore:
        objects = self._adapter(settings)
        if self._observer is SILENT:
            return objects
        return InstrumentedStore(objects, self._observer, self._runtime)

    def _adapter(self, settings: StoreSettings) -> ObjectStore:
        if settings.scheme == "memory":
            bucket = self._shared(settings.bucket)[0]
            return MemoryObjectStore(bucket, self._runtime, name=settings.bucket)
        return _open_objects(settings, self._runtime, read_only=self._read_only)

    def _shared(self, name: str) -> tuple[MemoryBucket, MemoryRecords]:
        """``memory://`` is this client's own, ``memory://name`` everybody's in the process."""
        if name == "":
            return MemoryBucket(), MemoryRecords()
        return _shared_memory.setdefault(name, (MemoryBucket(), MemoryRecords()))

    def _open_metadata(self, objects: ObjectStore) -> MetadataStore:
        self._metadata = self.cluster.metadata = self._metadata_adapter(objects)
        if self._observer is SILENT:
            return self._metadata
        return InstrumentedMetadata(self._metadata, self._observer, self._runtime)

    def _metadata_adapter(self, objects: ObjectStore) -> MetadataStore:
        if self._metadata_url is not None:
            return _open_metadata_url(self._metadata_url, self._runtime)
        if self._settings.scheme == "memory":
            records = self._shared(self._settings.bucket)[1]
            return MemoryMetadata(self._runtime, records, name=self._settings.bucket)
        if self._settings.scheme == "file" and not self._is_network:
            path = Path(self._settings.path) / SQLITE_FILE
            return SqliteMetadata(path, self._runtime, read_only=self._read_only)
        return ObjectMetadata(objects, self._runtime)


def _open_objects(settings: StoreSettings, runtime: Runtime, *, read_only: bool) -> ObjectStore:
    if settings.scheme == "file":
        return LocalObjectStore(Path(settings.path) / OBJECTS_DIR, runtime, read_only=read_only)
    if settings.scheme == "memory":
        return MemoryObjectStore()
    return CloudObjectStore(settings, runtime)


def _open_metadata_url(url: str, runtime: Runtime) -> MetadataStore:
    scheme = urlsplit(url).scheme
    if scheme != "etcd":
        raise InvalidRequest(f"metadata={scheme}://: use etcd://host:port,host:port/prefix")
    from woodpecker.metadata.etcd_url import open_etcd

    return open_etcd(url, runtime, os.environ)


def _buffer_directory(buffer: str) -> Path:
    settings = parse_store_url(as_url(buffer))
    if settings.scheme != "file":
        raise InvalidRequest(
            f"buffer={buffer!r}: open segments need a local directory, file:///dir"
        )
    path = Path(settings.path)
    if not is_local(path):
        raise InvalidRequest(
            f"buffer={buffer!r} lies on a network or unknown file system, where locks and syncs "
            "cannot be trusted: use a local disk"
        )
    return path


def _check_directory(path: Path, *, read_only: bool) -> None:
    """A directory that holds something else is not turned into a store."""
    if not path.exists():
        if read_only:
            raise NotFound(f"there is no Woodpecker store at {path}")
        return
    if not path.is_dir():
        raise InvalidRequest(f"{path} is not a directory")
    try:
        entries = {entry.name for entry in path.iterdir()}
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from error
    strangers = entries - _OWN_ENTRIES - _OF_THE_SYSTEM
    if strangers and not any((path / mark).exists() for mark in _MARKS):
        raise InvalidRequest(
            f"{path} is not a Woodpecker store and is not empty (it holds "
            f"{min(strangers)!r}): use an empty or new directory"
        )
    if not read_only and not os.access(path, os.W_OK | os.X_OK):
        raise InvalidRequest(
            f"{path} cannot be written: check its owner and mode, or pass read_only=True"
        )
