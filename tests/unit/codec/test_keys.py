"""Keys: written and read back, sorted as numbers are, nothing else taken for one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.golden.samples import DIGEST, LOG_ID

from woodpecker.codec import keys
from woodpecker.errors import InvalidRequest

OBJECTS: list[tuple[str, str, keys.ObjectKey]] = [
    (
        keys.block(LOG_ID, 7, 12),
        f"{LOG_ID}/000000000007/000000000012",
        keys.BlockKey(LOG_ID, 7, 12),
    ),
    (
        keys.sealed(LOG_ID, 7, (1 << 63) - 1, DIGEST),
        f"{LOG_ID}/sealed/000000000007-09223372036854775807-{DIGEST}",
        keys.SealedKey(LOG_ID, 7, (1 << 63) - 1, DIGEST),
    ),
    (
        keys.page(LOG_ID, 1, 0, 99, DIGEST),
        f"{LOG_ID}/pages/01-000000000000-000000000099-{DIGEST}",
        keys.PageKey(LOG_ID, 1, 0, 99, DIGEST),
    ),
    (
        keys.register(LOG_ID, 7, DIGEST),
        f"{LOG_ID}/registers/end-000000000007-{DIGEST}",
        keys.RegisterKey(LOG_ID, False, 7, DIGEST),
    ),
    (
        keys.register(LOG_ID, 7, DIGEST, is_anchor=True),
        f"{LOG_ID}/registers/anchor-000000000007-{DIGEST}",
        keys.RegisterKey(LOG_ID, True, 7, DIGEST),
    ),
    (
        keys.caller_object(LOG_ID, "checkpoints/v1.bin"),
        f"{LOG_ID}/objects/checkpoints/v1.bin",
        keys.CallerKey(LOG_ID, "checkpoints/v1.bin"),
    ),
]


@pytest.mark.parametrize(("key", "text", "parsed"), OBJECTS, ids=lambda value: type(value).__name__)
def test_objects(key: str, text: str, parsed: keys.ObjectKey) -> None:
    assert key == text
    assert keys.parse_object(key) == parsed
    assert type(keys.parse_object(key)) is type(parsed)
    assert key.startswith(keys.log_prefix(LOG_ID))


def test_prefixes_hold_their_keys_and_no_others() -> None:
    prefixes = [
        keys.segment_prefix(LOG_ID, 7),
        keys.sealed_prefix(LOG_ID),
        keys.pages_prefix(LOG_ID),
        keys.registers_prefix(LOG_ID),
        keys.registers_prefix(LOG_ID),
        keys.objects_prefix(LOG_ID),
    ]
    for (key, _, _), own in zip(OBJECTS, prefixes, strict=True):
        assert [prefix for prefix in prefixes if key.startswith(prefix)] == [own] * prefixes.count(
            own
        )


def test_metadata_keys() -> None:
    assert keys.manifest("orders") == "meta/logs/orders" == keys.LOGS + "orders"
    assert keys.cursor(LOG_ID, "billing") == f"meta/cursors/{LOG_ID}/billing"
    assert keys.cursor(LOG_ID, "billing").startswith(keys.cursors(LOG_ID))
    assert keys.lease("sweep") == "meta/leases/sweep" == keys.LEASES + "sweep"
    assert keys.node("n1") == "meta/nodes/n1" == keys.NODES + "n1"
    assert keys.parse_manifest(keys.manifest("orders")) == "orders"
    assert keys.parse_cursor(keys.cursor(LOG_ID, "billing")) == (LOG_ID, "billing")


def test_listings_sort_by_number() -> None:
    numbers = [0, 9, 10, 99, 100, 10**11, 10**12 - 1]
    for make in (
        lambda n: keys.block(LOG_ID, n, 5),
        lambda n: keys.block(LOG_ID, 5, n),
        lambda n: keys.sealed(LOG_ID, 5, n * 10**7, DIGEST),
        lambda n: keys.page(LOG_ID, 0, n, 10**12 - 1, DIGEST),
    ):
        made = [make(n) for n in numbers]
        assert made == sorted(made)


@pytest.mark.parametrize(
    "key",
    [
        "",
        keys.STORE_MARKER,
        keys.manifest("orders"),
        f"{LOG_ID}/7/12",
        f"{LOG_ID}/000000000007/000000000012/x",
        f"{LOG_ID}/000000000007/000000000012\n",
        f"{LOG_ID}/000000000007/00000000001\uff12",
        f"{LOG_ID.upper()}/000000000007/000000000012",
        f"{LOG_ID}/sealed/000000000007-09223372036854775807-{DIGEST[:-1]}",
        f"{LOG_ID}/pages/1-000000000000-000000000099-{DIGEST}",
        f"{LOG_ID}/registers/",
        f"{LOG_ID}/objects/",
        f"{LOG_ID}/other/x",
        f"{LOG_ID}/registers/{DIGEST}",
        f"x{LOG_ID}/sealed/000000000007-09223372036854775807-{DIGEST}",
    ],
)
def test_other_keys_are_left_alone(key: str) -> None:
    assert keys.parse_object(key) is None
    with pytest.raises(InvalidRequest, match="not the key of a block"):
        keys.parse_block(key)


def test_blocks_alone() -> None:
    assert keys.parse_block(keys.block(LOG_ID, 7, 12)) == (LOG_ID, 7, 12)
    with pytest.raises(InvalidRequest):
        keys.parse_block(keys.register(LOG_ID, 7, DIGEST))


@pytest.mark.parametrize(
    "make",
    [
        lambda: keys.block(LOG_ID, 10**12, 0),
        lambda: keys.block(LOG_ID, 0, -1),
        lambda: keys.block(LOG_ID.upper(), 0, 0),
        lambda: keys.block("../" + LOG_ID, 0, 0),
        lambda: keys.sealed(LOG_ID, 0, 0, "short"),
        lambda: keys.page(LOG_ID, 100, 0, 0, DIGEST),
        lambda: keys.register(LOG_ID, 7, ""),
        lambda: keys.manifest("../x"),
        lambda: keys.manifest(""),
        lambda: keys.cursor(LOG_ID, "a/b"),
        lambda: keys.cursor("", "a"),
        lambda: keys.lease("a b"),
        lambda: keys.node("a/b"),
        lambda: keys.caller_object(LOG_ID, "a//b"),
        lambda: keys.caller_object(LOG_ID, "a/../b"),
        lambda: keys.parse_manifest("meta/cursors/x"),
        lambda: keys.parse_manifest("meta/logs/"),
        lambda: keys.parse_cursor("meta/logs/x"),
        lambda: keys.parse_cursor(f"meta/cursors/{LOG_ID}"),
        lambda: keys.parse_cursor("meta/cursors/short/name"),
    ],
)
def test_what_cannot_be_a_key_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidRequest):
        make()
