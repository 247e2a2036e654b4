"""Names and when each is due next."""

from __future__ import annotations

import heapq


class Schedule:
    """Each name at most once; the earlier time counts. Times in milliseconds of any one clock."""

    def __init__(self) -> None:
        self._due_ms: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []  # with entries that do not count any more

    def __len__(self) -> int:
        return len(self._due_ms)

    def __contains__(self, name: str) -> bool:
        return name in self._due_ms

    def put(self, name: str, due_ms: float) -> None:
        """``name`` is due at that time, if not earlier."""
        known = self._due_ms.get(name)
        if known is None or due_ms < known:
            self._due_ms[name] = due_ms
            heapq.heappush(self._heap, (due_ms, name))

    def next_ms(self) -> float | None:
        """When the first name is due."""
        while self._heap and self._due_ms.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self, now_ms: float) -> str | None:
        """Take the name that has been due for longest, if any is."""
        first_ms = self.next_ms()
        if first_ms is None or first_ms > now_ms:
            return None
        _, name = heapq.heappop(self._heap)
        del self._due_ms[name]
        return name
