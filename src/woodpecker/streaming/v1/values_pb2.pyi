from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StartForm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    START_FORM_UNSPECIFIED: _ClassVar[StartForm]
    START_FORM_EARLIEST: _ClassVar[StartForm]
    START_FORM_LATEST: _ClassVar[StartForm]
    START_FORM_SEQ: _ClassVar[StartForm]
    START_FORM_AFTER: _ClassVar[StartForm]
    START_FORM_POSITION: _ClassVar[StartForm]
    START_FORM_TICK: _ClassVar[StartForm]
    START_FORM_TIME: _ClassVar[StartForm]

class EndForm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    END_FORM_NEVER: _ClassVar[EndForm]
    END_FORM_POSITION: _ClassVar[EndForm]
    END_FORM_TICK: _ClassVar[EndForm]
    END_FORM_TAIL: _ClassVar[EndForm]

class RefusalClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFUSAL_CLASS_UNSPECIFIED: _ClassVar[RefusalClass]
    REFUSAL_CLASS_MOVED: _ClassVar[RefusalClass]
    REFUSAL_CLASS_LATER: _ClassVar[RefusalClass]
    REFUSAL_CLASS_UNKNOWN: _ClassVar[RefusalClass]
    REFUSAL_CLASS_GAP: _ClassVar[RefusalClass]
    REFUSAL_CLASS_STALE_PRODUCER: _ClassVar[RefusalClass]
    REFUSAL_CLASS_EXPIRED: _ClassVar[RefusalClass]
    REFUSAL_CLASS_ABORTED: _ClassVar[RefusalClass]
    REFUSAL_CLASS_CONDITION: _ClassVar[RefusalClass]
    REFUSAL_CLASS_GONE: _ClassVar[RefusalClass]
    REFUSAL_CLASS_INVALID: _ClassVar[RefusalClass]
    REFUSAL_CLASS_DENIED: _ClassVar[RefusalClass]
    REFUSAL_CLASS_OUT_OF_RANGE: _ClassVar[RefusalClass]
    REFUSAL_CLASS_FENCED: _ClassVar[RefusalClass]
    REFUSAL_CLASS_CORRUPT: _ClassVar[RefusalClass]
    REFUSAL_CLASS_NOT_FOUND: _ClassVar[RefusalClass]
    REFUSAL_CLASS_EXISTS: _ClassVar[RefusalClass]
    REFUSAL_CLASS_NOT_LEADER: _ClassVar[RefusalClass]
    REFUSAL_CLASS_UNAVAILABLE: _ClassVar[RefusalClass]
START_FORM_UNSPECIFIED: StartForm
START_FORM_EARLIEST: StartForm
START_FORM_LATEST: StartForm
START_FORM_SEQ: StartForm
START_FORM_AFTER: StartForm
START_FORM_POSITION: StartForm
START_FORM_TICK: StartForm
START_FORM_TIME: StartForm
END_FORM_NEVER: EndForm
END_FORM_POSITION: EndForm
END_FORM_TICK: EndForm
END_FORM_TAIL: EndForm
REFUSAL_CLASS_UNSPECIFIED: RefusalClass
REFUSAL_CLASS_MOVED: RefusalClass
REFUSAL_CLASS_LATER: RefusalClass
REFUSAL_CLASS_UNKNOWN: RefusalClass
REFUSAL_CLASS_GAP: RefusalClass
REFUSAL_CLASS_STALE_PRODUCER: RefusalClass
REFUSAL_CLASS_EXPIRED: RefusalClass
REFUSAL_CLASS_ABORTED: RefusalClass
REFUSAL_CLASS_CONDITION: RefusalClass
REFUSAL_CLASS_GONE: RefusalClass
REFUSAL_CLASS_INVALID: RefusalClass
REFUSAL_CLASS_DENIED: RefusalClass
REFUSAL_CLASS_OUT_OF_RANGE: RefusalClass
REFUSAL_CLASS_FENCED: RefusalClass
REFUSAL_CLASS_CORRUPT: RefusalClass
REFUSAL_CLASS_NOT_FOUND: RefusalClass
REFUSAL_CLASS_EXISTS: RefusalClass
REFUSAL_CLASS_NOT_LEADER: RefusalClass
REFUSAL_CLASS_UNAVAILABLE: RefusalClass

class Position(_message.Message):
    __slots__ = ("seq", "index", "tick", "low", "term")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TICK_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    seq: int
    index: int
    tick: int
    low: int
    term: int
    def __init__(self, seq: _Optional[int] = ..., index: _Optional[int] = ..., tick: _Optional[int] = ..., low: _Optional[int] = ..., term: _Optional[int] = ...) -> None: ...

class Property(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: bytes
    value: bytes
    def __init__(self, name: _Optional[bytes] = ..., value: _Optional[bytes] = ...) -> None: ...

class Where(_message.Message):
    __slots__ = ("type", "key", "properties")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    type: str
    key: bytes
    properties: _containers.RepeatedCompositeFieldContainer[Property]
    def __init__(self, type: _Optional[str] = ..., key: _Optional[bytes] = ..., properties: _Optional[_Iterable[_Union[Property, _Mapping]]] = ...) -> None: ...

class SeqRange(_message.Message):
    __slots__ = ("first", "last")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class Start(_message.Message):
    __slots__ = ("form", "value", "index", "term", "low", "ranges")
    FORM_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    form: StartForm
    value: int
    index: int
    term: int
    low: int
    ranges: _containers.RepeatedCompositeFieldContainer[SeqRange]
    def __init__(self, form: _Optional[_Union[StartForm, str]] = ..., value: _Optional[int] = ..., index: _Optional[int] = ..., term: _Optional[int] = ..., low: _Optional[int] = ..., ranges: _Optional[_Iterable[_Union[SeqRange, _Mapping]]] = ...) -> None: ...

class Stop(_message.Message):
    __slots__ = ("form", "value", "index")
    FORM_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    form: EndForm
    value: int
    index: int
    def __init__(self, form: _Optional[_Union[EndForm, str]] = ..., value: _Optional[int] = ..., index: _Optional[int] = ...) -> None: ...

class Messages(_message.Message):
    __slots__ = ("payloads", "keys", "types", "property_counts", "property_names", "property_values")
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    PROPERTY_COUNTS_FIELD_NUMBER: _ClassVar[int]
    PROPERTY_NAMES_FIELD_NUMBER: _ClassVar[int]
    PROPERTY_VALUES_FIELD_NUMBER: _ClassVar[int]
    payloads: _containers.RepeatedScalarFieldContainer[bytes]
    keys: _containers.RepeatedScalarFieldContainer[bytes]
    types: _containers.RepeatedScalarFieldContainer[str]
    property_counts: _containers.RepeatedScalarFieldContainer[int]
    property_names: _containers.RepeatedScalarFieldContainer[bytes]
    property_values: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, payloads: _Optional[_Iterable[bytes]] = ..., keys: _Optional[_Iterable[bytes]] = ..., types: _Optional[_Iterable[str]] = ..., property_counts: _Optional[_Iterable[int]] = ..., property_names: _Optional[_Iterable[bytes]] = ..., property_values: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("kind", "message", "term", "address", "after_ms", "expected", "actual", "earliest", "reason")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    ACTUAL_FIELD_NUMBER: _ClassVar[int]
    EARLIEST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    kind: RefusalClass
    message: str
    term: int
    address: str
    after_ms: int
    expected: int
    actual: int
    earliest: int
    reason: str
    def __init__(self, kind: _Optional[_Union[RefusalClass, str]] = ..., message: _Optional[str] = ..., term: _Optional[int] = ..., address: _Optional[str] = ..., after_ms: _Optional[int] = ..., expected: _Optional[int] = ..., actual: _Optional[int] = ..., earliest: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Close(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
