from woodpecker.streaming.v1 import values_pb2 as _values_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ProduceUp(_message.Message):
    __slots__ = ("produce_hello", "attach", "batch", "keep_alive", "close", "required")
    PRODUCE_HELLO_FIELD_NUMBER: _ClassVar[int]
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    KEEP_ALIVE_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    produce_hello: ProduceHello
    attach: Attach
    batch: Batch
    keep_alive: KeepAlive
    close: _values_pb2.Close
    required: bool
    def __init__(self, produce_hello: _Optional[_Union[ProduceHello, _Mapping]] = ..., attach: _Optional[_Union[Attach, _Mapping]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ..., keep_alive: _Optional[_Union[KeepAlive, _Mapping]] = ..., close: _Optional[_Union[_values_pb2.Close, _Mapping]] = ..., required: bool = ...) -> None: ...

class ProduceDown(_message.Message):
    __slots__ = ("produce_ready", "attached", "ack", "batch_refused", "credit", "rate", "moved", "close", "closed", "required")
    PRODUCE_READY_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    BATCH_REFUSED_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    MOVED_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    produce_ready: ProduceReady
    attached: Attached
    ack: Ack
    batch_refused: BatchRefused
    credit: Credit
    rate: Rate
    moved: Moved
    close: _values_pb2.Close
    closed: Closed
    required: bool
    def __init__(self, produce_ready: _Optional[_Union[ProduceReady, _Mapping]] = ..., attached: _Optional[_Union[Attached, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., batch_refused: _Optional[_Union[BatchRefused, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., rate: _Optional[_Union[Rate, _Mapping]] = ..., moved: _Optional[_Union[Moved, _Mapping]] = ..., close: _Optional[_Union[_values_pb2.Close, _Mapping]] = ..., closed: _Optional[_Union[Closed, _Mapping]] = ..., required: bool = ...) -> None: ...

class ProduceHello(_message.Message):
    __slots__ = ("pchannel", "term", "incarnation", "client")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    term: int
    incarnation: str
    client: str
    def __init__(self, pchannel: _Optional[str] = ..., term: _Optional[int] = ..., incarnation: _Optional[str] = ..., client: _Optional[str] = ...) -> None: ...

class ProduceReady(_message.Message):
    __slots__ = ("credit_bytes", "rate_bytes_s", "batch_max_bytes", "message_max_bytes")
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RATE_BYTES_S_FIELD_NUMBER: _ClassVar[int]
    BATCH_MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    credit_bytes: int
    rate_bytes_s: int
    batch_max_bytes: int
    message_max_bytes: int
    def __init__(self, credit_bytes: _Optional[int] = ..., rate_bytes_s: _Optional[int] = ..., batch_max_bytes: _Optional[int] = ..., message_max_bytes: _Optional[int] = ...) -> None: ...

class Attach(_message.Message):
    __slots__ = ("session", "producer", "epoch")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    session: int
    producer: str
    epoch: int
    def __init__(self, session: _Optional[int] = ..., producer: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class Attached(_message.Message):
    __slots__ = ("session", "producer", "epoch", "next_sequence", "grant_tick")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    GRANT_TICK_FIELD_NUMBER: _ClassVar[int]
    session: int
    producer: str
    epoch: int
    next_sequence: int
    grant_tick: int
    def __init__(self, session: _Optional[int] = ..., producer: _Optional[str] = ..., epoch: _Optional[int] = ..., next_sequence: _Optional[int] = ..., grant_tick: _Optional[int] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("session", "sequence", "vcid", "messages", "txn_number", "begin", "commit", "abort", "join", "ephemeral", "keep_alive_ms", "grant_tick")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    VCID_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    TXN_NUMBER_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    ABORT_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    EPHEMERAL_FIELD_NUMBER: _ClassVar[int]
    KEEP_ALIVE_MS_FIELD_NUMBER: _ClassVar[int]
    GRANT_TICK_FIELD_NUMBER: _ClassVar[int]
    session: int
    sequence: int
    vcid: int
    messages: _values_pb2.Messages
    txn_number: int
    begin: bool
    commit: bool
    abort: bool
    join: bool
    ephemeral: bool
    keep_alive_ms: int
    grant_tick: int
    def __init__(self, session: _Optional[int] = ..., sequence: _Optional[int] = ..., vcid: _Optional[int] = ..., messages: _Optional[_Union[_values_pb2.Messages, _Mapping]] = ..., txn_number: _Optional[int] = ..., begin: bool = ..., commit: bool = ..., abort: bool = ..., join: bool = ..., ephemeral: bool = ..., keep_alive_ms: _Optional[int] = ..., grant_tick: _Optional[int] = ...) -> None: ...

class KeepAlive(_message.Message):
    __slots__ = ("session", "txn_number")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TXN_NUMBER_FIELD_NUMBER: _ClassVar[int]
    session: int
    txn_number: int
    def __init__(self, session: _Optional[int] = ..., txn_number: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("session", "sequence", "seq", "tick", "count", "low")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TICK_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    session: int
    sequence: int
    seq: int
    tick: int
    count: int
    low: int
    def __init__(self, session: _Optional[int] = ..., sequence: _Optional[int] = ..., seq: _Optional[int] = ..., tick: _Optional[int] = ..., count: _Optional[int] = ..., low: _Optional[int] = ...) -> None: ...

class BatchRefused(_message.Message):
    __slots__ = ("session", "sequence", "refusal")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    session: int
    sequence: int
    refusal: _values_pb2.Refusal
    def __init__(self, session: _Optional[int] = ..., sequence: _Optional[int] = ..., refusal: _Optional[_Union[_values_pb2.Refusal, _Mapping]] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("size_bytes", "consumer")
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    size_bytes: int
    consumer: int
    def __init__(self, size_bytes: _Optional[int] = ..., consumer: _Optional[int] = ...) -> None: ...

class Rate(_message.Message):
    __slots__ = ("rate_bytes_s",)
    RATE_BYTES_S_FIELD_NUMBER: _ClassVar[int]
    rate_bytes_s: int
    def __init__(self, rate_bytes_s: _Optional[int] = ...) -> None: ...

class Moved(_message.Message):
    __slots__ = ("pchannel", "term", "address")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    term: int
    address: str
    def __init__(self, pchannel: _Optional[str] = ..., term: _Optional[int] = ..., address: _Optional[str] = ...) -> None: ...

class Closed(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ConsumeUp(_message.Message):
    __slots__ = ("consume_hello", "subscribe", "credit", "unsubscribe", "ask_progress", "close", "required")
    CONSUME_HELLO_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    UNSUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    ASK_PROGRESS_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    consume_hello: ConsumeHello
    subscribe: Subscribe
    credit: Credit
    unsubscribe: Unsubscribe
    ask_progress: AskProgress
    close: _values_pb2.Close
    required: bool
    def __init__(self, consume_hello: _Optional[_Union[ConsumeHello, _Mapping]] = ..., subscribe: _Optional[_Union[Subscribe, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., unsubscribe: _Optional[_Union[Unsubscribe, _Mapping]] = ..., ask_progress: _Optional[_Union[AskProgress, _Mapping]] = ..., close: _Optional[_Union[_values_pb2.Close, _Mapping]] = ..., required: bool = ...) -> None: ...

class ConsumeDown(_message.Message):
    __slots__ = ("consume_ready", "started", "data", "progress", "consumer_ended", "consumer_refused", "moved", "close", "closed", "required")
    CONSUME_READY_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_ENDED_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_REFUSED_FIELD_NUMBER: _ClassVar[int]
    MOVED_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    consume_ready: ConsumeReady
    started: Started
    data: Data
    progress: Progress
    consumer_ended: ConsumerEnded
    consumer_refused: ConsumerRefused
    moved: Moved
    close: _values_pb2.Close
    closed: Closed
    required: bool
    def __init__(self, consume_ready: _Optional[_Union[ConsumeReady, _Mapping]] = ..., started: _Optional[_Union[Started, _Mapping]] = ..., data: _Optional[_Union[Data, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., consumer_ended: _Optional[_Union[ConsumerEnded, _Mapping]] = ..., consumer_refused: _Optional[_Union[ConsumerRefused, _Mapping]] = ..., moved: _Optional[_Union[Moved, _Mapping]] = ..., close: _Optional[_Union[_values_pb2.Close, _Mapping]] = ..., closed: _Optional[_Union[Closed, _Mapping]] = ..., required: bool = ...) -> None: ...

class ConsumeHello(_message.Message):
    __slots__ = ("pchannel", "term", "incarnation", "client")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    term: int
    incarnation: str
    client: str
    def __init__(self, pchannel: _Optional[str] = ..., term: _Optional[int] = ..., incarnation: _Optional[str] = ..., client: _Optional[str] = ...) -> None: ...

class ConsumeReady(_message.Message):
    __slots__ = ("term",)
    TERM_FIELD_NUMBER: _ClassVar[int]
    term: int
    def __init__(self, term: _Optional[int] = ...) -> None: ...

class Subscribe(_message.Message):
    __slots__ = ("consumer", "vcid", "start", "stop", "where", "credit_bytes", "ticks")
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    VCID_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    TICKS_FIELD_NUMBER: _ClassVar[int]
    consumer: int
    vcid: int
    start: _values_pb2.Start
    stop: _values_pb2.Stop
    where: _values_pb2.Where
    credit_bytes: int
    ticks: bool
    def __init__(self, consumer: _Optional[int] = ..., vcid: _Optional[int] = ..., start: _Optional[_Union[_values_pb2.Start, _Mapping]] = ..., stop: _Optional[_Union[_values_pb2.Stop, _Mapping]] = ..., where: _Optional[_Union[_values_pb2.Where, _Mapping]] = ..., credit_bytes: _Optional[int] = ..., ticks: bool = ...) -> None: ...

class Unsubscribe(_message.Message):
    __slots__ = ("consumer",)
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    consumer: int
    def __init__(self, consumer: _Optional[int] = ...) -> None: ...

class AskProgress(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Started(_message.Message):
    __slots__ = ("consumer", "position", "tail")
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    consumer: int
    position: _values_pb2.Position
    tail: _values_pb2.Position
    def __init__(self, consumer: _Optional[int] = ..., position: _Optional[_Union[_values_pb2.Position, _Mapping]] = ..., tail: _Optional[_Union[_values_pb2.Position, _Mapping]] = ...) -> None: ...

class Data(_message.Message):
    __slots__ = ("consumer", "seqs", "ticks", "messages", "indexes", "low", "term", "ephemeral", "cost_bytes")
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    SEQS_FIELD_NUMBER: _ClassVar[int]
    TICKS_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    INDEXES_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    EPHEMERAL_FIELD_NUMBER: _ClassVar[int]
    COST_BYTES_FIELD_NUMBER: _ClassVar[int]
    consumer: int
    seqs: _containers.RepeatedScalarFieldContainer[int]
    ticks: _containers.RepeatedScalarFieldContainer[int]
    messages: _values_pb2.Messages
    indexes: _containers.RepeatedScalarFieldContainer[int]
    low: int
    term: int
    ephemeral: bool
    cost_bytes: int
    def __init__(self, consumer: _Optional[int] = ..., seqs: _Optional[_Iterable[int]] = ..., ticks: _Optional[_Iterable[int]] = ..., messages: _Optional[_Union[_values_pb2.Messages, _Mapping]] = ..., indexes: _Optional[_Iterable[int]] = ..., low: _Optional[int] = ..., term: _Optional[int] = ..., ephemeral: bool = ..., cost_bytes: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("position", "tick", "proof_age_ms", "consumers")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    TICK_FIELD_NUMBER: _ClassVar[int]
    PROOF_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    position: _values_pb2.Position
    tick: int
    proof_age_ms: int
    consumers: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, position: _Optional[_Union[_values_pb2.Position, _Mapping]] = ..., tick: _Optional[int] = ..., proof_age_ms: _Optional[int] = ..., consumers: _Optional[_Iterable[int]] = ...) -> None: ...

class ConsumerEnded(_message.Message):
    __slots__ = ("consumer", "position")
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    consumer: int
    position: _values_pb2.Position
    def __init__(self, consumer: _Optional[int] = ..., position: _Optional[_Union[_values_pb2.Position, _Mapping]] = ...) -> None: ...

class ConsumerRefused(_message.Message):
    __slots__ = ("consumer", "refusal")
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    consumer: int
    refusal: _values_pb2.Refusal
    def __init__(self, consumer: _Optional[int] = ..., refusal: _Optional[_Union[_values_pb2.Refusal, _Mapping]] = ...) -> None: ...

class GetReadPointRequest(_message.Message):
    __slots__ = ("pchannel", "vcid")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    VCID_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    vcid: int
    def __init__(self, pchannel: _Optional[str] = ..., vcid: _Optional[int] = ...) -> None: ...

class ReadPoint(_message.Message):
    __slots__ = ("position",)
    POSITION_FIELD_NUMBER: _ClassVar[int]
    position: _values_pb2.Position
    def __init__(self, position: _Optional[_Union[_values_pb2.Position, _Mapping]] = ...) -> None: ...

class DescribeTransactionRequest(_message.Message):
    __slots__ = ("pchannel", "producer", "epoch", "txn_number")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    TXN_NUMBER_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    producer: str
    epoch: int
    txn_number: int
    def __init__(self, pchannel: _Optional[str] = ..., producer: _Optional[str] = ..., epoch: _Optional[int] = ..., txn_number: _Optional[int] = ...) -> None: ...

class TransactionState(_message.Message):
    __slots__ = ("state", "position", "reason")
    STATE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    state: str
    position: _values_pb2.Position
    reason: str
    def __init__(self, state: _Optional[str] = ..., position: _Optional[_Union[_values_pb2.Position, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class OpenCursorRequest(_message.Message):
    __slots__ = ("pchannel", "vcid", "cursor", "start", "attach", "holder", "nonce", "where")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    VCID_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    vcid: int
    cursor: str
    start: _values_pb2.Start
    attach: bool
    holder: str
    nonce: str
    where: _values_pb2.Where
    def __init__(self, pchannel: _Optional[str] = ..., vcid: _Optional[int] = ..., cursor: _Optional[str] = ..., start: _Optional[_Union[_values_pb2.Start, _Mapping]] = ..., attach: bool = ..., holder: _Optional[str] = ..., nonce: _Optional[str] = ..., where: _Optional[_Union[_values_pb2.Where, _Mapping]] = ...) -> None: ...

class PositionRange(_message.Message):
    __slots__ = ("first", "last")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    first: _values_pb2.Position
    last: _values_pb2.Position
    def __init__(self, first: _Optional[_Union[_values_pb2.Position, _Mapping]] = ..., last: _Optional[_Union[_values_pb2.Position, _Mapping]] = ...) -> None: ...

class CommitCursorRequest(_message.Message):
    __slots__ = ("pchannel", "vcid", "cursor", "generation", "done", "ranges", "reset")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    VCID_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    vcid: int
    cursor: str
    generation: int
    done: _values_pb2.Position
    ranges: _containers.RepeatedCompositeFieldContainer[PositionRange]
    reset: bool
    def __init__(self, pchannel: _Optional[str] = ..., vcid: _Optional[int] = ..., cursor: _Optional[str] = ..., generation: _Optional[int] = ..., done: _Optional[_Union[_values_pb2.Position, _Mapping]] = ..., ranges: _Optional[_Iterable[_Union[PositionRange, _Mapping]]] = ..., reset: bool = ...) -> None: ...

class CursorState(_message.Message):
    __slots__ = ("cursor", "vcid", "generation", "holder", "done", "ranges", "where")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    VCID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    vcid: int
    generation: int
    holder: str
    done: _values_pb2.Position
    ranges: _containers.RepeatedCompositeFieldContainer[PositionRange]
    where: _values_pb2.Where
    def __init__(self, cursor: _Optional[str] = ..., vcid: _Optional[int] = ..., generation: _Optional[int] = ..., holder: _Optional[str] = ..., done: _Optional[_Union[_values_pb2.Position, _Mapping]] = ..., ranges: _Optional[_Iterable[_Union[PositionRange, _Mapping]]] = ..., where: _Optional[_Union[_values_pb2.Where, _Mapping]] = ...) -> None: ...

class ListCursorsRequest(_message.Message):
    __slots__ = ("pchannel", "vcid")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    VCID_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    vcid: int
    def __init__(self, pchannel: _Optional[str] = ..., vcid: _Optional[int] = ...) -> None: ...

class CursorList(_message.Message):
    __slots__ = ("cursors",)
    CURSORS_FIELD_NUMBER: _ClassVar[int]
    cursors: _containers.RepeatedCompositeFieldContainer[CursorState]
    def __init__(self, cursors: _Optional[_Iterable[_Union[CursorState, _Mapping]]] = ...) -> None: ...

class DeleteCursorRequest(_message.Message):
    __slots__ = ("pchannel", "vcid", "cursor")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    VCID_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    vcid: int
    cursor: str
    def __init__(self, pchannel: _Optional[str] = ..., vcid: _Optional[int] = ..., cursor: _Optional[str] = ...) -> None: ...
