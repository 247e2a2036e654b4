"""Limits that only long logs reach, made small for one run, so that a short log reaches them too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from woodpecker.core import fence_walk, retention
from woodpecker.metadata import history

TINY = (
    (retention, "INLINE_SEALED_MAX", 4),
    (retention, "PAGE_SEGMENTS", 3),
    (retention, "LEVEL_PAGES_MAX", 2),
    (history, "REGISTER_INLINE_BYTES", 64),
    (fence_walk, "AHEAD", 3),
)


@contextmanager
def tiny(*, when: bool) -> Iterator[None]:
    """Small limits inside the block."""
    before = [getattr(module, name) for module, name, _ in TINY]
    try:
        if when:
            for module, name, value in TINY:
                setattr(module, name, value)
        yield
    finally:
        for (module, name, _), value in zip(TINY, before, strict=True):
            setattr(module, name, value)
