from woodpecker.streaming.v1 import values_pb2 as _values_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StatusUp(_message.Message):
    __slots__ = ("watch_status", "required")
    WATCH_STATUS_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    watch_status: WatchStatus
    required: bool
    def __init__(self, watch_status: _Optional[_Union[WatchStatus, _Mapping]] = ..., required: bool = ...) -> None: ...

class StatusDown(_message.Message):
    __slots__ = ("node_status", "required")
    NODE_STATUS_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    node_status: NodeStatus
    required: bool
    def __init__(self, node_status: _Optional[_Union[NodeStatus, _Mapping]] = ..., required: bool = ...) -> None: ...

class WatchStatus(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("node", "incarnation", "is_full", "pchannels", "clock_us", "memory_bytes")
    NODE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    IS_FULL_FIELD_NUMBER: _ClassVar[int]
    PCHANNELS_FIELD_NUMBER: _ClassVar[int]
    CLOCK_US_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    node: str
    incarnation: str
    is_full: bool
    pchannels: _containers.RepeatedCompositeFieldContainer[PchannelStatus]
    clock_us: int
    memory_bytes: int
    def __init__(self, node: _Optional[str] = ..., incarnation: _Optional[str] = ..., is_full: bool = ..., pchannels: _Optional[_Iterable[_Union[PchannelStatus, _Mapping]]] = ..., clock_us: _Optional[int] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class PchannelStatus(_message.Message):
    __slots__ = ("pchannel", "term", "state", "done_bytes", "total_bytes", "reason", "bytes_s", "lag_ms", "memory_bytes", "vchannels", "vchannels_limit")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DONE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BYTES_S_FIELD_NUMBER: _ClassVar[int]
    LAG_MS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    VCHANNELS_FIELD_NUMBER: _ClassVar[int]
    VCHANNELS_LIMIT_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    term: int
    state: str
    done_bytes: int
    total_bytes: int
    reason: str
    bytes_s: float
    lag_ms: int
    memory_bytes: int
    vchannels: int
    vchannels_limit: int
    def __init__(self, pchannel: _Optional[str] = ..., term: _Optional[int] = ..., state: _Optional[str] = ..., done_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ..., reason: _Optional[str] = ..., bytes_s: _Optional[float] = ..., lag_ms: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., vchannels: _Optional[int] = ..., vchannels_limit: _Optional[int] = ...) -> None: ...

class AssignRequest(_message.Message):
    __slots__ = ("pchannel", "log", "log_id", "term", "incarnation", "epoch")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    log: str
    log_id: str
    term: int
    incarnation: str
    epoch: int
    def __init__(self, pchannel: _Optional[str] = ..., log: _Optional[str] = ..., log_id: _Optional[str] = ..., term: _Optional[int] = ..., incarnation: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("pchannel", "term", "incarnation", "epoch")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    term: int
    incarnation: str
    epoch: int
    def __init__(self, pchannel: _Optional[str] = ..., term: _Optional[int] = ..., incarnation: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class AppendControlRequest(_message.Message):
    __slots__ = ("pchannel", "term", "kind", "vcid", "name", "trim_before", "retention_age_s", "retention_bytes", "broadcast_id", "broadcast_floor", "payload", "type")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    VCID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TRIM_BEFORE_FIELD_NUMBER: _ClassVar[int]
    RETENTION_AGE_S_FIELD_NUMBER: _ClassVar[int]
    RETENTION_BYTES_FIELD_NUMBER: _ClassVar[int]
    BROADCAST_ID_FIELD_NUMBER: _ClassVar[int]
    BROADCAST_FLOOR_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    term: int
    kind: str
    vcid: int
    name: str
    trim_before: int
    retention_age_s: int
    retention_bytes: int
    broadcast_id: int
    broadcast_floor: int
    payload: bytes
    type: str
    def __init__(self, pchannel: _Optional[str] = ..., term: _Optional[int] = ..., kind: _Optional[str] = ..., vcid: _Optional[int] = ..., name: _Optional[str] = ..., trim_before: _Optional[int] = ..., retention_age_s: _Optional[int] = ..., retention_bytes: _Optional[int] = ..., broadcast_id: _Optional[int] = ..., broadcast_floor: _Optional[int] = ..., payload: _Optional[bytes] = ..., type: _Optional[str] = ...) -> None: ...

class ControlWritten(_message.Message):
    __slots__ = ("position",)
    POSITION_FIELD_NUMBER: _ClassVar[int]
    position: _values_pb2.Position
    def __init__(self, position: _Optional[_Union[_values_pb2.Position, _Mapping]] = ...) -> None: ...
