from woodpecker.streaming.v1 import manager_pb2 as _manager_pb2
from woodpecker.streaming.v1 import values_pb2 as _values_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DiscoverUp(_message.Message):
    __slots__ = ("discover_hello", "report", "close", "required")
    DISCOVER_HELLO_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    discover_hello: DiscoverHello
    report: Report
    close: _values_pb2.Close
    required: bool
    def __init__(self, discover_hello: _Optional[_Union[DiscoverHello, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ..., close: _Optional[_Union[_values_pb2.Close, _Mapping]] = ..., required: bool = ...) -> None: ...

class DiscoverDown(_message.Message):
    __slots__ = ("map_change", "close", "required")
    MAP_CHANGE_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    map_change: MapChange
    close: _values_pb2.Close
    required: bool
    def __init__(self, map_change: _Optional[_Union[MapChange, _Mapping]] = ..., close: _Optional[_Union[_values_pb2.Close, _Mapping]] = ..., required: bool = ...) -> None: ...

class DiscoverHello(_message.Message):
    __slots__ = ("client", "features")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    client: str
    features: int
    def __init__(self, client: _Optional[str] = ..., features: _Optional[int] = ...) -> None: ...

class MapEntry(_message.Message):
    __slots__ = ("pchannel", "term", "node", "incarnation", "address", "serving")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    term: int
    node: str
    incarnation: str
    address: str
    serving: bool
    def __init__(self, pchannel: _Optional[str] = ..., term: _Optional[int] = ..., node: _Optional[str] = ..., incarnation: _Optional[str] = ..., address: _Optional[str] = ..., serving: bool = ...) -> None: ...

class MapVersion(_message.Message):
    __slots__ = ("epoch", "counter")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    counter: int
    def __init__(self, epoch: _Optional[int] = ..., counter: _Optional[int] = ...) -> None: ...

class MapChange(_message.Message):
    __slots__ = ("version", "entries", "digest", "since", "removed")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    version: MapVersion
    entries: _containers.RepeatedCompositeFieldContainer[MapEntry]
    digest: str
    since: MapVersion
    removed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[_Union[MapVersion, _Mapping]] = ..., entries: _Optional[_Iterable[_Union[MapEntry, _Mapping]]] = ..., digest: _Optional[str] = ..., since: _Optional[_Union[MapVersion, _Mapping]] = ..., removed: _Optional[_Iterable[str]] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("pchannel", "term", "kind", "resend_map")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RESEND_MAP_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    term: int
    kind: str
    resend_map: bool
    def __init__(self, pchannel: _Optional[str] = ..., term: _Optional[int] = ..., kind: _Optional[str] = ..., resend_map: bool = ...) -> None: ...

class LocateRequest(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class Attribute(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Channel(_message.Message):
    __slots__ = ("name", "vcid", "pchannel", "state", "retention_age_s", "retention_bytes", "attributes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VCID_FIELD_NUMBER: _ClassVar[int]
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RETENTION_AGE_S_FIELD_NUMBER: _ClassVar[int]
    RETENTION_BYTES_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    vcid: int
    pchannel: str
    state: str
    retention_age_s: int
    retention_bytes: int
    attributes: _containers.RepeatedCompositeFieldContainer[Attribute]
    def __init__(self, name: _Optional[str] = ..., vcid: _Optional[int] = ..., pchannel: _Optional[str] = ..., state: _Optional[str] = ..., retention_age_s: _Optional[int] = ..., retention_bytes: _Optional[int] = ..., attributes: _Optional[_Iterable[_Union[Attribute, _Mapping]]] = ...) -> None: ...

class Channels(_message.Message):
    __slots__ = ("channels", "more")
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    channels: _containers.RepeatedCompositeFieldContainer[Channel]
    more: bool
    def __init__(self, channels: _Optional[_Iterable[_Union[Channel, _Mapping]]] = ..., more: bool = ...) -> None: ...

class CreateChannelRequest(_message.Message):
    __slots__ = ("name", "request", "exist_ok", "pchannel", "retention_age_s", "retention_bytes", "attributes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    EXIST_OK_FIELD_NUMBER: _ClassVar[int]
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    RETENTION_AGE_S_FIELD_NUMBER: _ClassVar[int]
    RETENTION_BYTES_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    request: str
    exist_ok: bool
    pchannel: str
    retention_age_s: int
    retention_bytes: int
    attributes: _containers.RepeatedCompositeFieldContainer[Attribute]
    def __init__(self, name: _Optional[str] = ..., request: _Optional[str] = ..., exist_ok: bool = ..., pchannel: _Optional[str] = ..., retention_age_s: _Optional[int] = ..., retention_bytes: _Optional[int] = ..., attributes: _Optional[_Iterable[_Union[Attribute, _Mapping]]] = ...) -> None: ...

class DeleteChannelRequest(_message.Message):
    __slots__ = ("name", "request")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    request: str
    def __init__(self, name: _Optional[str] = ..., request: _Optional[str] = ...) -> None: ...

class ListChannelsRequest(_message.Message):
    __slots__ = ("prefix", "start_after", "limit")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    START_AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    start_after: str
    limit: int
    def __init__(self, prefix: _Optional[str] = ..., start_after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class DescribeClusterRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NodeInfo(_message.Message):
    __slots__ = ("node", "incarnation", "address", "zone", "is_alive", "draining", "frozen", "pchannels", "version", "safe_to_terminate", "waits_for")
    NODE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    IS_ALIVE_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    PCHANNELS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SAFE_TO_TERMINATE_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    node: str
    incarnation: str
    address: str
    zone: str
    is_alive: bool
    draining: bool
    frozen: bool
    pchannels: _containers.RepeatedScalarFieldContainer[str]
    version: str
    safe_to_terminate: bool
    waits_for: str
    def __init__(self, node: _Optional[str] = ..., incarnation: _Optional[str] = ..., address: _Optional[str] = ..., zone: _Optional[str] = ..., is_alive: bool = ..., draining: bool = ..., frozen: bool = ..., pchannels: _Optional[_Iterable[str]] = ..., version: _Optional[str] = ..., safe_to_terminate: bool = ..., waits_for: _Optional[str] = ...) -> None: ...

class PchannelInfo(_message.Message):
    __slots__ = ("pchannel", "log", "term", "state", "node", "reason", "waits_for", "status")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    log: str
    term: int
    state: str
    node: str
    reason: str
    waits_for: str
    status: _manager_pb2.PchannelStatus
    def __init__(self, pchannel: _Optional[str] = ..., log: _Optional[str] = ..., term: _Optional[int] = ..., state: _Optional[str] = ..., node: _Optional[str] = ..., reason: _Optional[str] = ..., waits_for: _Optional[str] = ..., status: _Optional[_Union[_manager_pb2.PchannelStatus, _Mapping]] = ...) -> None: ...

class ClusterState(_message.Message):
    __slots__ = ("coordinator", "epoch", "features", "nodes", "pchannels")
    COORDINATOR_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    PCHANNELS_FIELD_NUMBER: _ClassVar[int]
    coordinator: str
    epoch: int
    features: int
    nodes: _containers.RepeatedCompositeFieldContainer[NodeInfo]
    pchannels: _containers.RepeatedCompositeFieldContainer[PchannelInfo]
    def __init__(self, coordinator: _Optional[str] = ..., epoch: _Optional[int] = ..., features: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[NodeInfo, _Mapping]]] = ..., pchannels: _Optional[_Iterable[_Union[PchannelInfo, _Mapping]]] = ...) -> None: ...

class MoveRequest(_message.Message):
    __slots__ = ("pchannel", "node")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    node: str
    def __init__(self, pchannel: _Optional[str] = ..., node: _Optional[str] = ...) -> None: ...

class FreezeRequest(_message.Message):
    __slots__ = ("node", "frozen")
    NODE_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    node: str
    frozen: bool
    def __init__(self, node: _Optional[str] = ..., frozen: bool = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("node", "draining")
    NODE_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    node: str
    draining: bool
    def __init__(self, node: _Optional[str] = ..., draining: bool = ...) -> None: ...

class SetPolicyRequest(_message.Message):
    __slots__ = ("balance", "expected_nodes")
    BALANCE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_NODES_FIELD_NUMBER: _ClassVar[int]
    balance: bool
    expected_nodes: int
    def __init__(self, balance: bool = ..., expected_nodes: _Optional[int] = ...) -> None: ...

class AddPchannelsRequest(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...
