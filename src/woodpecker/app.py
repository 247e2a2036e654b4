"""Composition root: from URLs and settings to a client. The one place that picks adapters."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from woodpecker.client.client import Client
from woodpecker.client.environment import Environment
from woodpecker.codec.keys import STORE_MARKER
from woodpecker.core.ids import Kind
from woodpecker.errors import InvalidRequest, NotFound
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
from woodpecker.store_marker import check_store

SQLITE_FILE, OBJECTS_DIR, BUFFER_DIR = "metadata.sqlite", "objects", "buffer"
_OWN_ENTRIES = {OBJECTS_DIR, BUFFER_DIR, SQLITE_FILE, SQLITE_FILE + "-wal", SQLITE_FILE + "-shm"}
_MARKS = (
    SQLITE_FILE,
    f"{OBJECTS_DIR}/{STORE_MARKER}",
)  # one of them is there once there is a store
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
    **options: OptionValue,
) -> Client:
    """Connect to a store; ``async with`` the result.

    Args:
        url: ``file:///dir``, ``s3://bucket/prefix``, ``gs://``, ``az://``, ``memory://[name]``, or a
            path. Options may stand in its query: ``s3://b/p?endpoint=...&region=...``.
        metadata: ``etcd://h1:2379,h2:2379/prefix``; default: SQLite in a local directory, conditional
            writes in a bucket or on a network file system.
        buffer: ``file:///fast/dir``: logs of a bucket keep their open segments there (kind ``file``).
        read_only: never write anything, not even metadata.
        background: run sealing, retention and garbage collection while the client is open.
        observer: takes metrics and traces (``woodpecker.observability``); silent by default.
        options: options of the storage URL by name; they win over its query.
    Raises:
        InvalidRequest: unknown scheme or option, contradictory settings. On opening also: not a store,
        written by a newer version, two stores with one root, credentials refused; NotFound: no such
        bucket, or no store there and ``read_only``; Unavailable.
    """
    text = as_url(url)
    if text.startswith("wp://"):
        raise InvalidRequest("wp:// needs LogStore nodes, which this version does not have yet")
    settings = parse_store_url(text, **options)
    parts = _Parts(
        settings=settings,
        metadata=metadata,
        buffer=buffer,
        read_only=read_only,
        observer=observer,
        runtime=runtime or SystemRuntime(),
        options=options,
    )
    return Client(parts.open, parts.close, background=background)


def open_objects(url: str | os.PathLike[str], **options: OptionValue) -> ObjectStore:
    """The bare object store of a URL, whether a Woodpecker store is there or not; for probing."""
    return _open_objects(parse_store_url(as_url(url), **options), SystemRuntime(), read_only=False)


def as_url(url: str | os.PathLike[str]) -> str:
    """A URL as it is; a path as ``file://``."""
    text = os.fspath(url)
    if "://" in text:
        return text
    return Path(text).expanduser().absolute().as_uri()


class _Parts:
    """The adapters of one client: made when it is opened, closed with it."""

    def __init__(
        self,
        *,
        settings: StoreSettings,
        metadata: str | None,
        buffer: str | None,
        read_only: bool,
        observer: Observer,
        runtime: Runtime,
        options: Mapping[str, OptionValue],
    ) -> None:
        self._settings = settings
        self._metadata_url = metadata
        self._buffer = None if buffer is None else _buffer_directory(buffer)
        self._read_only = read_only
        self._observer = observer
        self._runtime = runtime
        self._options = options
        self._objects: dict[str, ObjectStore] = {}
        self._segments: dict[tuple[Kind, str], SegmentStore] = {}
        self._metadata: MetadataStore | None = None
        self._is_network = settings.scheme == "file" and not is_local(Path(settings.path))

    async def open(self) -> Environment:
        if self._settings.scheme == "file":
            _check_directory(Path(self._settings.path), read_only=self._read_only)
        try:
            return await self._open()
        except BaseException:
            await self.close()
            raise

    async def _open(self) -> Environment:
        objects = self.objects("")
        metadata = self._metadata = self._open_metadata(objects)
        if not self._read_only:
            await self._probe(objects, metadata)
        if self._observer is not SILENT:
            metadata = InstrumentedMetadata(metadata, self._observer, self._runtime)
        await check_store(
            objects, metadata, new_id=self._runtime.token(), may_create=not self._read_only
        )
        return Environment(
            url=self._settings.url,
            runtime=self._runtime,
            observer=self._observer,
            catalog=Catalog(metadata, self._runtime, read_only=self._read_only),
            places=self,
            read_only=self._read_only,
        )

    async def _probe(self, objects: ObjectStore, metadata: MetadataStore) -> None:
        """Does the store honour the conditions everything rests on? Asked once, before anything else."""
        if not isinstance(metadata, ObjectMetadata) and self._settings.scheme in {"file", "memory"}:
            return  # links on a local disk, and our own memory
        fault = await objects.probe("create_if_absent")
        if fault is not None:
            raise InvalidRequest(f"no Woodpecker store can be kept here: {fault}")
        if isinstance(metadata, ObjectMetadata):
            fault = await objects.probe("compare_and_swap")
            if fault is not None:
                raise InvalidRequest(f"metadata cannot be kept in the bucket itself: {fault}")

    async def close(self) -> None:
        for segments in self._segments.values():
            await segments.close()
        if self._metadata is not None:
            await self._metadata.close()
        for objects in self._objects.values():
            await objects.close()

    # --- Places ---

    @property
    def default_kind(self) -> Kind:
        is_file = self._buffer is not None or (
            self._settings.scheme == "file" and not self._is_network
        )
        return Kind.FILE if is_file else Kind.OBJECT

    def check_kind(self, kind: Kind, storage: str) -> None:
        if kind is Kind.QUORUM:
            raise InvalidRequest("mode 'quorum' needs LogStore nodes, which this version lacks yet")
        if kind is Kind.FILE and self._buffer_for(storage) is None:
            raise InvalidRequest(
                "mode 'file' needs a local directory for open segments: pass buffer='file:///dir'"
            )

    async def admit(self, storage: str) -> str:
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
            self._objects[storage] = self._open_objects(settings)
        return self._objects[storage]

    def segments(self, kind: Kind, storage: str) -> SegmentStore:
        self.check_kind(kind, storage)
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
