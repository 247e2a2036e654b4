"""Producers: connect, send in order, be cut, send again, believe what they are told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from woodpecker.streaming.core.admission import TRUE_FOR_EVER, Admit, Asked, Refuse, Repeat
from woodpecker.streaming.core.owner import Serve
from woodpecker.streaming.core.refusals import Class
from woodpecker.testing.model.checker import Broken
from woodpecker.testing.stream_model.logs import Logs
from woodpecker.testing.stream_model.produce.rules import Rules
from woodpecker.testing.stream_model.produce.state import (
    Answer,
    Client,
    Connection,
    Late,
    Node,
    Setup,
    State,
)
from woodpecker.testing.stream_model.produce.writing import NAME, Writing, put

Move = tuple[Any, State]
SURFACED = {Class.GONE, Class.ABORTED, Class.INVALID}
PROVEN = set(Class) - TRUE_FOR_EVER  # an owner of the past may not say so


class Clients:
    """All moves of producers, and of the frames they left behind."""

    def __init__(self, logs: Logs, writing: Writing, setup: Setup, rules: Rules) -> None:
        self._logs = logs
        self._writing = writing
        self._setup = setup
        self._rules = rules

    def moves(self, state: State) -> Iterator[Move]:
        """Of all of them."""
        for number, client in enumerate(state.clients):
            after = self._setup.scripts[number].starts_after
            if after >= 0 and not (state.clients[after].done or state.clients[after].unknown):
                continue
            if client.late is not None:
                yield from self._late(state, number, client, client.late)
            if client.is_over or client.done >= len(self._setup.scripts[number].steps):
                continue
            if client.connection is None:
                yield from self._connect(state, number, client)
            else:
                yield from self._connected(state, number, client, client.connection)

    # ------------------------------------------------------------------------------ connecting

    def _connect(self, state: State, number: int, client: Client) -> Iterator[Move]:
        name = self._setup.scripts[number].name
        for at, node in enumerate(state.nodes):
            term = node.owner.term
            if not isinstance(node.todo, Serve) or (
                term < client.term and self._rules.terms_never_fall
            ):
                continue
            connection = Connection(at, node.token, client.done)
            fresh = client._replace(connection=connection, term=max(term, client.term))
            if client.grant < 0 and not name:
                fresh = fresh._replace(grant=self._writing.tick(state, node))
            after = state
            if name and not client.epoch:
                granted = self._writing.grant(state, at, name)
                if isinstance(granted, Refuse):
                    continue
                after = granted
                due = self._logs.end(after.nodes[at].view)
                fold = self._logs.fold(after.nodes[at].view)
                session = fold.sessions[name]
                granted_as = Answer(session.last_sequence + 1, "granted", session.epoch, due)
                fresh = fresh._replace(pending=(granted_as,))
            yield ("client", number, "attaches at node", at), _client(after, number, fresh)

    def _connected(
        self, state: State, number: int, client: Client, connection: Connection
    ) -> Iterator[Move]:
        node = state.nodes[connection.node]
        is_alive = node.token == connection.token
        steps = self._setup.scripts[number].steps
        is_granted = client.epoch or not self._setup.scripts[number].name
        until = min(client.done + self._setup.window, len(steps))
        may_arrive = (
            is_granted and connection.arrived < until and self._knows(state, number, connection)
        )
        if is_alive and isinstance(node.todo, Serve) and may_arrive:
            yield self._arrive(state, number, client, connection)
        if is_alive and client.pending:
            yield from self._answer(state, number, client, client.pending[0], node)
        if not is_alive or not isinstance(node.todo, Serve):
            yield self._cut(state, number, client, connection, connection.arrived)
        elif state.cuts and (connection.arrived > client.done or not is_granted):
            for sent in range(connection.arrived, until + 1):
                after = state._replace(cuts=state.cuts - 1)
                yield self._cut(after, number, client, connection, sent)

    def _knows(self, state: State, number: int, connection: Connection) -> bool:
        """A client learns of a channel when that is there."""
        vcid = self._setup.scripts[number].steps[connection.arrived].vcid
        fold = self._logs.fold(state.log)
        return not self._setup.knows_channels or vcid in fold.vchannels or vcid in fold.deleted

    def _cut(
        self, state: State, number: int, client: Client, connection: Connection, sent: int
    ) -> Move:
        """The stream ends; frames up to ``sent`` are still under way."""
        late = client.late
        if sent > connection.arrived:
            late = Late(connection.node, connection.token, connection.arrived, sent, client.base)
        unknown = client.unknown
        for batch in range(client.done, sent):
            unknown |= 1 << batch
        fresh = client._replace(connection=None, pending=(), late=late, unknown=unknown)
        return ("client", number, "is cut, sent up to", sent), _client(state, number, fresh)

    # -------------------------------------------------------------------------------- arriving

    def _asked(self, number: int, client: Client, batch: int, base: int, node: Node) -> Asked:
        script = self._setup.scripts[number]
        step = script.steps[batch]
        vcid = step.vcid
        if not self._rules.by_vcid:
            channels = self._writing.fold_of(node).vchannels
            vcid = next((one for one, row in channels.items() if row.name == NAME), vcid)
        return Asked(
            producer=script.name or f"anonymous {number}",
            epoch=client.epoch,
            sequence=base + batch,
            vcid=vcid,
            count=step.count,
            number=step.number,
            begin=step.begin,
            commit=step.commit,
            grant_tick=client.grant,
            type=f"{number}.{batch}",
        )

    def _judge(self, state: State, at: int, asked: Asked) -> tuple[State, str, int, int]:
        """(state, kind, value, due): what the owner does with a batch, and owes for it."""
        node = state.nodes[at]
        verdict = self._rules.judge(
            self._writing.fold_of(node), asked, self._writing.tick(state, node)
        )
        rules = self._rules
        match verdict:
            case Admit() if rules.in_one_step or node.judged is not None:
                state = self._writing.data(state, at, verdict)
                due = self._logs.end(state.nodes[at].view)
                first = due - verdict.count
                value = due - 1 if asked.commit else first
                return state, "ack", value, due * rules.answers_when_acked
            case Admit():
                state = put(state, at, node._replace(judged=verdict))
                due = self._logs.end(node.view) + verdict.count
                return state, "ack", due - verdict.count, due
            case Repeat(result=result):
                return state, "ack", result.seq, result.end * rules.answers_when_acked
            case Refuse(refusal=refusal, rests_on=due):
                self._check_repeat(node, asked, refusal.kind)
                due *= rules.refuses_when_acked
                return state, refusal.kind, refusal.expected, due
        raise AssertionError(verdict)

    def _check_repeat(self, node: Node, asked: Asked, kind: Class) -> None:
        session = self._logs.fold(node.view).sessions.get(asked.producer)
        if session is None or session.epoch != asked.epoch:
            return
        if any(result.sequence == asked.sequence for result in session.results):
            raise Broken(f"a batch that is in the log is refused as {kind} when it comes again")

    def _arrive(self, state: State, number: int, client: Client, connection: Connection) -> Move:
        batch = connection.arrived
        if not self._rules.oldest_first and batch == client.done and client.unknown:
            batch = min(batch + 1, len(self._setup.scripts[number].steps) - 1)
        node = state.nodes[connection.node]
        asked = self._asked(number, client, batch, client.base, node)
        state, kind, value, due = self._judge(state, connection.node, asked)
        fresh = client._replace(
            connection=connection._replace(arrived=connection.arrived + 1),
            pending=(*client.pending, Answer(batch, kind, value, due)),
        )
        return ("client", number, "batch", batch, "arrives:", kind), _client(state, number, fresh)

    def _late(self, state: State, number: int, client: Client, late: Late) -> Iterator[Move]:
        """A frame of a stream that was given up arrives; nobody hears the answer."""
        node = state.nodes[late.node]
        if node.token != late.token or not isinstance(node.todo, Serve):
            return
        asked = self._asked(number, client, late.arrived, late.base, node)
        state, kind, _, _ = self._judge(state, late.node, asked)
        arrived = late.arrived + 1
        rest = None if arrived == late.until else late._replace(arrived=arrived)
        fresh = client._replace(late=rest)
        yield (
            ("client", number, "batch", late.arrived, "of a stream given up arrives:", kind),
            _client(state, number, fresh),
        )

    # ------------------------------------------------------------------------------- answering

    def _answer(
        self, state: State, number: int, client: Client, answer: Answer, node: Node
    ) -> Iterator[Move]:
        if self._logs.end(node.acked) < answer.due:
            return
        is_owner = node.token == state.token or not self._rules.refuses_when_owner
        if answer.kind in PROVEN and not is_owner:
            return  # MOVED, once the node learns of it
        move = ("client", number, "hears", answer.kind, "for batch", answer.number)
        yield move, _client(state, number, self._told(number, client, answer))

    def _told(self, number: int, client: Client, answer: Answer) -> Client:
        rest = client._replace(pending=client.pending[1:])
        batch = answer.number
        if answer.kind == "granted":
            return client._replace(epoch=answer.value, base=batch, pending=())
        if answer.kind == "ack":
            return rest._replace(
                done=batch + 1,
                unknown=client.unknown & ~(1 << batch),
                acked=(*client.acked, (batch, answer.value)),
            )
        connection = client.connection
        assert connection is not None
        if answer.kind == Class.GAP:
            expected = answer.value - client.base
            if expected < client.done:
                raise Broken(f"an owner expects batch {expected} again, which was acknowledged")
            back = connection._replace(arrived=min(expected, batch))
            return client._replace(pending=(), connection=back)
        if answer.kind == Class.LATER:
            return client._replace(pending=(), connection=connection._replace(arrived=batch))
        return self._surfaced(number, client, connection, answer)

    def _surfaced(
        self, number: int, client: Client, connection: Connection, answer: Answer
    ) -> Client:
        """The caller is told, and the sequence is the next batch's, if no stream was cut that had this one."""
        batch = answer.number
        is_known = not client.unknown & (1 << batch) or not self._rules.unknown_stays
        is_not_written = answer.kind in {*SURFACED, Class.STALE_PRODUCER} and is_known
        step = self._setup.scripts[number].steps[batch]
        was_cut = bool(client.unknown & (1 << batch)) and self._rules.ends_after_cut
        is_over = answer.kind not in SURFACED or step.number >= 0 or was_cut
        return client._replace(
            done=batch + 1,
            base=client.base - 1,
            pending=(),
            connection=None if is_over else connection._replace(arrived=batch + 1),
            told=(*client.told, (batch, str(answer.kind), is_not_written)),
            is_over=is_over,
        )


def _client(state: State, number: int, client: Client) -> State:
    clients = state.clients
    return state._replace(clients=(*clients[:number], client, *clients[number + 1 :]))
