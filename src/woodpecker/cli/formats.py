"""Formats of entries on the command line; what they mean is in docs/cli.md."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """How input becomes entries."""

    LINES = "lines"
    JSONL = "jsonl"
    RAW = "raw"


class Shape(StrEnum):
    """How entries are printed."""

    LINES = "lines"
    JSONL = "jsonl"
    RAW = "raw"
    HEX = "hex"
