"""All parts of the models of streaming."""

from __future__ import annotations

from woodpecker.testing.stream_model.cursors import CURSORS
from woodpecker.testing.stream_model.produce.cases import PRODUCE
from woodpecker.testing.stream_model.reading import READ
from woodpecker.testing.stream_model.tail import TAIL
from woodpecker.testing.stream_model.ticks.cases import TICKS

PARTS = (PRODUCE, TICKS, READ, TAIL, CURSORS)
