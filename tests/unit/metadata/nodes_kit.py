"""Nodes on a metadata store in memory whose requests can fail, in virtual time."""

from __future__ import annotations

from dataclasses import dataclass, field

from woodpecker.core.membership import Load, NodeState
from woodpecker.metadata.memory import MemoryMetadata, MemoryRecords
from woodpecker.metadata.node_records import NodeRecords
from woodpecker.metadata.node_session import NodeSession
from woodpecker.metadata.nodes import NodeDirectory
from woodpecker.testing.faulty import Faults, FaultyMetadata
from woodpecker.testing.virtual import VirtualRuntime


@dataclass
class Process:
    """One start of a node: its session, what it holds, and what it was told."""

    session: NodeSession = field(init=False)
    load: Load = field(default_factory=Load)
    states: list[NodeState] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


class Cell:
    """One metadata store and everybody around it; each node process has faults of its own."""

    def __init__(self, seed: int = 0) -> None:
        self.runtime = VirtualRuntime(seed)
        self._records = MemoryRecords()
        self.faults = Faults(self.runtime)  # of everybody but the nodes
        self.records = NodeRecords(self._store(self.faults), self.runtime)
        self.processes: list[Process] = []
        self.directories: list[NodeDirectory] = []

    def _store(self, faults: Faults) -> FaultyMetadata:
        return FaultyMetadata(MemoryMetadata(self.runtime, self._records), faults)

    def process(self, node: str = "n1", faults: Faults | None = None) -> Process:
        """A process that has not registered yet."""
        process = Process()
        process.session = NodeSession(
            self._store(faults or Faults(self.runtime)),
            self.runtime,
            node,
            report=lambda: process.load,
            on_state=process.states.append,
            on_lost=process.lost.append,
        )
        self.processes.append(process)
        return process

    async def node(
        self,
        node: str = "n1",
        *,
        boot: int = 1,
        zone: str = "",
        incarnation: str = "",
        past: tuple[str, ...] = (),
        address: str = "",
        faults: Faults | None = None,
    ) -> Process:
        """A process that lives and beats."""
        process = self.process(node, faults)
        await process.session.register(
            boot=boot,
            incarnation=incarnation or f"of-{node}",
            past=past,
            address=address or f"{node}:7100",
            zone=zone,
        )
        process.session.start()
        return process

    def directory(self) -> NodeDirectory:
        """A client's view."""
        made = NodeDirectory(self._store(self.faults), self.runtime)
        self.directories.append(made)
        return made

    async def close(self) -> None:
        """End everything; nothing may be left running."""
        for directory in self.directories:
            await directory.close()
        for process in self.processes:
            await process.session.stop()
        assert not [name for name in self.runtime.running() if not name.startswith("late ")]
