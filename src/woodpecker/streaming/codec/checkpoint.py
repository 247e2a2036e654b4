"""A fold as the bytes of a checkpoint object (docs/formats.md)."""

from __future__ import annotations

from woodpecker.streaming.core.fold import Fold


def encode_checkpoint(fold: Fold) -> bytes:
    """The fold as bytes, with a digest; equal folds give equal bytes."""
    raise NotImplementedError


def decode_checkpoint(data: bytes | memoryview, *, where: str = "checkpoint") -> Fold:
    """Bytes as a fold.

    Raises: Corrupt: not the bytes that were written. InvalidRequest: written by a newer version.
    """
    raise NotImplementedError


def digest_of(data: bytes | memoryview) -> str:
    """Digest for CheckpointRef: 32 hex digits."""
    raise NotImplementedError
