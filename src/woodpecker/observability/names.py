"""Every counter, gauge, histogram, event and span, named once, with unit and meaning.

docs/observability.md lists them; a test keeps the two in step. A name's member is what drivers pass;
its value is what shows up outside (Prometheus puts ``woodpecker_`` before it).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Name(StrEnum):
    """A name with its unit, its labels and one line of meaning."""

    unit: str
    labels: tuple[str, ...]
    meaning: str

    def __new__(cls, value: str, unit: str, labels: tuple[str, ...], meaning: str) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.unit = unit
        member.labels = labels
        member.meaning = meaning
        return member


class Counter(Name):
    """Only grow."""

    APPENDS = "appends", "entries", ("kind",), "entries acknowledged to writers"
    APPENDED_BYTES = "appended_bytes", "bytes", ("kind",), "payload bytes acknowledged to writers"
    BLOCKS = "blocks", "blocks", ("kind",), "blocks made durable"
    BLOCK_BYTES = "block_bytes", "bytes", ("kind",), "bytes of those blocks as stored"
    READ_ENTRIES = "read_entries", "entries", (), "entries handed to readers"
    READ_BYTES = "read_bytes", "bytes", (), "payload bytes handed to readers"
    STORE_REQUESTS = (
        "store_requests",
        "requests",
        ("op", "result"),
        "object store requests by operation and result (ok, or the code of the error)",
    )
    STORE_SENT_BYTES = "store_sent_bytes", "bytes", (), "bytes sent to object stores"
    STORE_RECEIVED_BYTES = "store_received_bytes", "bytes", (), "bytes got from object stores"
    METADATA_REQUESTS = (
        "metadata_requests",
        "requests",
        ("op", "result"),
        "metadata store requests by operation and result",
    )
    FENCED = "fenced", "writers", (), "writers of this process that were fenced"
    TAKEOVERS = "takeovers", "openings", (), "writers opened"
    ROLLS = "rolls", "segments", ("kind",), "segments closed by a live writer, the next one opened"
    SEALED = "sealed", "segments", (), "segments rewritten as one object"
    TRIMS = "trims", "trims", (), "trim points moved"
    GC_DELETED = "gc_deleted", "objects", (), "objects deleted by garbage collection"
    BACKGROUND_ERRORS = (
        "background_errors",
        "errors",
        ("job",),
        "failed runs of a background job (seal, retention, gc, sweep); each is tried again",
    )
    STREAM_PRODUCE_BATCHES = (
        "stream_produce_batches",
        "batches",
        (),
        "batches acknowledged to producers",
    )
    STREAM_PRODUCE_BYTES = (
        "stream_produce_bytes",
        "bytes",
        (),
        "payloads, keys and properties acknowledged to producers",
    )
    STREAM_PRODUCE_REPEATS = (
        "stream_produce_repeats",
        "batches",
        (),
        "batches that were written before and answered with their first result",
    )
    STREAM_PRODUCE_REFUSED = (
        "stream_produce_refused",
        "batches",
        ("kind",),
        "batches refused, by class (gap, later, moved, ...)",
    )
    STREAM_TERM_CHANGES = (
        "stream_term_changes",
        "changes",
        ("reason",),
        "pchannels that began (opened) or ended to be served here (released, lost, failed)",
    )
    STREAM_SIGNALS = (
        "stream_signals",
        "signals",
        ("persisted",),
        "signals of time; persisted (yes): those that needed a batch of the log",
    )
    STREAM_TXN_COMMITTED = "stream_txn_committed", "transactions", (), "transactions committed"
    STREAM_TXN_ABORTED = (
        "stream_txn_aborted",
        "transactions",
        ("reason",),
        "transactions aborted: by their producer, or given up by the owner",
    )
    STREAM_DELIVERED = "stream_delivered", "messages", (), "messages sent to consumers"
    STREAM_EVICTED_BYTES = (
        "stream_evicted_bytes",
        "bytes",
        (),
        "bytes that left tail buffers to make room",
    )
    STREAM_EPHEMERAL_DROPPED = (
        "stream_ephemeral_dropped",
        "batches",
        (),
        "ephemeral batches dropped from tail buffers before everybody had seen them",
    )
    STREAM_OWNERSHIP_CHECKS = (
        "stream_ownership_checks",
        "checks",
        ("result",),
        "proofs of ownership asked of the manifest (owner, replaced, unknown)",
    )
    STREAM_CHECKPOINTS = "stream_checkpoints", "checkpoints", (), "checkpoints written"
    STREAM_ATTACH_RETRIES = (
        "stream_attach_retries",
        "tries",
        (),
        "times a consumer that reads the log was still behind the tail buffer, and read on",
    )


class Gauge(Name):
    """Go up and down."""

    QUEUE_BYTES = "queue_bytes", "bytes", (), "bytes held in writers, not yet durable"
    IN_FLIGHT_BLOCKS = "in_flight_blocks", "blocks", ("kind",), "blocks sent, not yet durable"
    OPEN_WRITERS = "open_writers", "writers", (), "writers open in this process"
    OPEN_READERS = "open_readers", "readers", (), "readers open in this process"
    STREAM_RATE_STATE = (
        "stream_rate_state",
        "0 to 2",
        ("pchannel",),
        "what producers are told: 0 no limit, 1 slower, 2 nothing now",
    )
    STREAM_TXN_OPEN = "stream_txn_open", "transactions", ("pchannel",), "open transactions"
    STREAM_TXN_IGNORED = (
        "stream_txn_ignored_verdicts",
        "verdicts",
        ("pchannel",),
        "verdicts that came after another one; should stay 0",
    )
    STREAM_LOW_LAG = (
        "stream_low_lag_entries",
        "entries",
        ("pchannel",),
        "from the oldest open transaction to the tail",
    )
    STREAM_TICK_AHEAD = (
        "stream_tick_ahead_ms",
        "ms",
        ("pchannel",),
        "how far ticks are ahead of this node's clock",
    )
    STREAM_UNCHECKPOINTED = (
        "stream_uncheckpointed_bytes",
        "bytes",
        ("pchannel",),
        "what a take-over would have to read besides the newest checkpoint",
    )
    STREAM_CURSOR_LAG = (
        "stream_cursor_lag_entries",
        "entries",
        ("pchannel",),
        "from the subscription that is furthest behind to the tail, looked at every 5 min",
    )
    STREAM_READERS = (
        "stream_readers",
        "consumers",
        ("pchannel", "mode"),
        "consumers, at the tail or in its buffer (tail) or reading the log (catchup)",
    )
    STREAM_BUFFER_BYTES = (
        "stream_buffer_bytes",
        "bytes",
        (),
        "held in tail buffers and read for consumers behind them",
    )
    STREAM_LEADER = "stream_leader", "0 or 1", (), "whether this coordinator leads and may decide"
    STREAM_ASSIGNMENTS = (
        "stream_assignments",
        "pchannels",
        ("state",),
        "pchannels by state; of the leader",
    )
    STREAM_NODES = (
        "stream_nodes",
        "nodes",
        ("standing",),
        "streaming nodes as the leader sees them: live, unsure, gone",
    )
    STREAM_BROADCASTS = (
        "stream_broadcasts",
        "broadcasts",
        ("state",),
        "unfinished broadcasts: waiting, pending, parked (a person must decide); of the leader",
    )
    STREAM_FOLLOWERS = "stream_followers", "streams", (), "clients that follow the leader's map"


class Histogram(Name):
    """Distributions."""

    STREAM_ACK = (
        "stream_ack_ms",
        "ms",
        (),
        "from a batch's arrival at its owner to its acknowledgement",
    )
    STREAM_OPEN = "stream_open_ms", "ms", (), "from the order to serve a pchannel to serving it"

    APPEND_LATENCY = (
        "append_latency_ms",
        "ms",
        ("kind",),
        "from packing a block's first entry to its acknowledgement, once per block",
    )
    BLOCK_SIZE = "block_size_bytes", "bytes", ("kind",), "size of one block as stored"
    STORE_LATENCY = "store_latency_ms", "ms", ("op",), "one object store request"
    METADATA_LATENCY = "metadata_latency_ms", "ms", ("op",), "one metadata store request"
    TAKEOVER = "takeover_ms", "ms", ("kind",), "from the call that opens a writer to a usable one"
    SEAL = "seal_ms", "ms", (), "sealing one segment"


class Event(Name):
    """Rare things a person may want to see; each is also a line of the log at the level given."""

    WRITER_OPENED = "writer_opened", "info", ("log", "epoch"), "a writer owns the log"
    WRITER_FENCED = "writer_fenced", "warning", ("log", "epoch"), "another writer took over"
    WRITER_FAILED = (
        "writer_failed",
        "error",
        ("log", "epoch", "error"),
        "a writer ended on an error",
    )
    SEGMENT_RECOVERED = (
        "segment_recovered",
        "info",
        ("log", "segment", "end_seq"),
        "a take-over fixed the end of a segment its writer had left open",
    )
    SEGMENT_SEALED = "segment_sealed", "debug", ("log", "segment", "bytes"), "a segment was sealed"
    TRIMMED = "trimmed", "info", ("log", "before"), "the trim point moved"
    DELETED = "log_deleted", "info", ("log",), "a log was deleted"
    BACKGROUND_FAILED = (
        "background_failed",
        "warning",
        ("job", "log", "error"),
        "a background job failed and will be tried again",
    )
    CORRUPT = "corrupt", "error", ("log", "where"), "stored bytes failed their checks"
    NODE_STOPPED = (
        "node_stopped",
        "error",
        ("node", "error"),
        "a LogStore node could not write its journal and serves nothing any more",
    )
    NODE_LOST = (
        "node_lost_records",
        "warning",
        ("node", "reason"),
        "a LogStore node may have forgotten records: it goes on as a new incarnation",
    )


class Span(Name):
    """Operations for traces."""

    OPEN_WRITER = "open_writer", "", ("log",), "taking over a log"
    RECOVER = "recover", "", ("log", "segment", "kind"), "fencing a segment and finding its end"
    ROLL = "roll", "", ("log", "segment"), "closing a segment and opening the next"
    SEAL = "seal", "", ("log", "segment"), "rewriting a closed segment as one object"
    TRIM = "trim", "", ("log",), "moving the trim point"
    VERIFY = "verify", "", ("log",), "walking the chain of a log"
    GC = "gc", "", ("log",), "deleting what nothing can need any more"


FAMILIES: tuple[type[Name], ...] = (Counter, Gauge, Histogram, Event, Span)
