from woodpecker.streaming.v1 import values_pb2 as _values_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BroadcastRequest(_message.Message):
    __slots__ = ("key", "targets", "payload", "type", "resources")
    KEY_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    key: str
    targets: _containers.RepeatedScalarFieldContainer[str]
    payload: bytes
    type: str
    resources: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, key: _Optional[str] = ..., targets: _Optional[_Iterable[str]] = ..., payload: _Optional[bytes] = ..., type: _Optional[str] = ..., resources: _Optional[_Iterable[str]] = ...) -> None: ...

class GetBroadcastRequest(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: str
    def __init__(self, key: _Optional[str] = ...) -> None: ...

class ListBroadcastsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeBroadcastRequest(_message.Message):
    __slots__ = ("key", "skip")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SKIP_FIELD_NUMBER: _ClassVar[int]
    key: str
    skip: bool
    def __init__(self, key: _Optional[str] = ..., skip: bool = ...) -> None: ...

class BroadcastInfo(_message.Message):
    __slots__ = ("id", "key", "state", "positions", "skipped", "reason")
    class PositionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _values_pb2.Position
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_values_pb2.Position, _Mapping]] = ...) -> None: ...
    class SkippedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: int
    key: str
    state: str
    positions: _containers.MessageMap[str, _values_pb2.Position]
    skipped: _containers.ScalarMap[str, str]
    reason: str
    def __init__(self, id: _Optional[int] = ..., key: _Optional[str] = ..., state: _Optional[str] = ..., positions: _Optional[_Mapping[str, _values_pb2.Position]] = ..., skipped: _Optional[_Mapping[str, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class BroadcastList(_message.Message):
    __slots__ = ("broadcasts",)
    BROADCASTS_FIELD_NUMBER: _ClassVar[int]
    broadcasts: _containers.RepeatedCompositeFieldContainer[BroadcastInfo]
    def __init__(self, broadcasts: _Optional[_Iterable[_Union[BroadcastInfo, _Mapping]]] = ...) -> None: ...
