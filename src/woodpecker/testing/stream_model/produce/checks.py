"""Invariants of the model of producing: of one log (looked at once), and of what clients were told."""

from __future__ import annotations

from typing import NamedTuple

from woodpecker.errors import Corrupt
from woodpecker.streaming.core.assembly import Assembly
from woodpecker.streaming.core.facts import Data, Delete, Facts
from woodpecker.streaming.core.refusals import Class
from woodpecker.streaming.core.values import Position
from woodpecker.testing.stream_model.logs import Logs
from woodpecker.testing.stream_model.produce.rules import Rules
from woodpecker.testing.stream_model.produce.state import Client, Setup, State


class Seen(NamedTuple):
    """What a log shows."""

    fault: str | None
    written: dict[str, tuple[int, int]]  # by batch name: (seq, vcid)
    delivered: dict[str, int]  # by batch name: effective seq


class Checks:
    """S1, S2, S3, S5, S15, S16 of the protocol."""

    def __init__(self, logs: Logs, setup: Setup, rules: Rules) -> None:
        self._logs = logs
        self._setup = setup
        self._rules = rules
        self._seen: dict[int, Seen] = {}

    def fault(self, state: State) -> str | None:
        """The rule that a state breaks."""
        seen = self._look(state.log)
        if seen.fault is not None:
            return seen.fault
        for number, client in enumerate(state.clients):
            fault = self._client(number, client, seen, state)
            if fault is not None:
                return fault
        return None

    def acknowledged_end(self, state: State) -> int:
        """The seq after all that anybody was told is written."""
        return max((seq + 1 for client in state.clients for _, seq in client.acked), default=0)

    def _client(self, number: int, client: Client, seen: Seen, state: State) -> str | None:
        for batch, seq in client.acked:
            step = self._setup.scripts[number].steps[batch]
            name = f"{number}.{batch}"
            if step.commit:
                if seen.delivered.get(name) != seq:
                    return (
                        f"S5: commit {name} was acknowledged at {seq}, readers do not see it there"
                    )
            elif seen.written.get(name, (-1, 0))[0] != seq:
                return f"S1: batch {name} was acknowledged at {seq}, and is not there"
        for batch, kind, is_not_written in client.told:
            name = f"{number}.{batch}"
            if is_not_written and name in seen.written:
                return f"S15: batch {name} was told not to be written, and is in the log"
            if kind == Class.ABORTED and self._is_open_elsewhere(state, number, batch):
                return f"S5: transaction of {name} was told to be aborted, and is open under the next owner"
            vcid = self._setup.scripts[number].steps[batch].vcid
            if kind == Class.GONE and self._setup.knows_channels and self._lives(state, vcid):
                return f"S16: channel {vcid} was told to be gone, and lives under the next owner"
            if kind == Class.EXPIRED and not state.clock:
                return f"S1: producer of {name} was forgotten though no time had passed"
        return None

    def _is_open_elsewhere(self, state: State, number: int, batch: int) -> bool:
        """Open in the log that an owner has taken over: an abort that was told is lost."""
        fold = self._logs.fold(state.log)
        script = self._setup.scripts[number]
        producer = script.name or f"anonymous {number}"
        return state.flight == state.log and any(
            txn.producer == producer and txn.number == script.steps[batch].number
            for txn in fold.open.values()
        )

    def _lives(self, state: State, vcid: int) -> bool:
        return state.flight == state.log and vcid in self._logs.fold(state.log).vchannels

    # ------------------------------------------------------------------------------ one log

    def _look(self, log: int) -> Seen:
        seen = self._seen.get(log)
        if seen is None:
            seen = self._seen[log] = self._judge(log)
        return seen

    def _judge(self, log: int) -> Seen:
        written: dict[str, tuple[int, int]] = {}
        newest: dict[str, int] = {}
        deleted: set[int] = set()
        batches = self._logs.batches(log)
        for facts in batches:
            body, vcid = facts.column.body, facts.column.vcid
            if isinstance(body, Delete):
                deleted.add(vcid)
            if not isinstance(body, Data):
                continue
            name, (owner, _, batch) = body.type, body.type.partition(".")
            if name in written:
                return Seen(f"S2: batch {name} is in the log twice", written, {})
            if int(batch) < newest.get(owner, -1):
                return Seen(f"S2: batch {name} stands after {newest[owner]}", written, {})
            if vcid in deleted:
                return Seen(f"S16: batch {name} is in channel {vcid} after its end", written, {})
            if vcid != self._setup.scripts[int(owner)].steps[int(batch)].vcid:
                return Seen(f"S16: batch {name} is in channel {vcid}, not its own", written, {})
            written[name] = (facts.seq, vcid)
            newest[owner] = int(batch)
        fault, delivered = self._read(batches)
        return Seen(fault or self._verdicts(log, delivered), written, delivered)

    def _read(self, batches: list[Facts]) -> tuple[str | None, dict[str, int]]:
        """Batch names by the effective seq that readers of channel 1 see them at."""
        assembly = Assembly[Facts](1, start=Position(0), read_from=0, assembly_bytes=1 << 20)
        delivered: dict[str, int] = {}
        began: dict[int, Facts] = {}
        for facts in batches:
            body = facts.column.body
            if isinstance(body, Data) and body.begin:
                began[body.txn] = facts
            try:
                delivery = assembly.feed(facts, facts)
            except Corrupt as error:
                return f"S5: a reader fails: {error}", delivered
            if delivery is None or (self._rules.readers_expire and self._is_late(facts, began)):
                continue
            for piece in delivery.pieces:
                data = piece.facts.column.body
                assert isinstance(data, Data)
                delivered[data.type] = delivery.seq
        return None, delivered

    def _is_late(self, facts: Facts, began: dict[int, Facts]) -> bool:
        """Mutant: the reader's own clock decides."""
        body = facts.column.body
        return (
            isinstance(body, Data) and body.txn in began and facts.tick - began[body.txn].tick > 50
        )

    def _verdicts(self, log: int, delivered: dict[str, int]) -> str | None:
        """The fold's verdicts are the readers'."""
        batches = self._logs.batches(log)
        for producer, session in self._logs.fold(log).sessions.items():
            for verdict in session.verdicts:
                names = [
                    facts.column.body.type
                    for facts in batches
                    if isinstance(facts.column.body, Data)
                    and facts.column.body.producer == producer
                    and facts.column.body.number == verdict.number
                ]
                shown = {delivered.get(name) for name in names}
                wanted = {None} if verdict.position is None else {verdict.position.seq}
                if names and shown != wanted:
                    return f"S5: transaction {verdict.number}: readers saw {shown}, its verdict is {wanted}"
        return None
