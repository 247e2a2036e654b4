"""Bytes to entries: whatever the pieces of the input are, the entries are the same."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woodpecker.cli.cutting import JsonLines, Lines, Pieces, make_cutter
from woodpecker.cli.formats import Format
from woodpecker.cli.records import entry_from_json
from woodpecker.client.entry import Entry
from woodpecker.errors import InvalidRequest

bytes_with_newlines = st.lists(
    st.sampled_from([b"\n", b"\r\n", b"\0", b"\xff\xfe", b"text", b"\xe2\x80\xa8"])
).map(b"".join)


def _pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    found, at = [], 0
    for size in sizes:
        found.append(data[at : at + size])
        at += size
    return [piece for piece in [*found, data[at:]] if piece]


def _cut(cutter, pieces):
    entries = [entry for piece in pieces for entry in cutter.cut(piece)]
    return entries + list(cutter.rest())


def _as_lines(entries) -> bytes:
    return b"".join(e.payload if isinstance(e, Entry) else e + b"\n" for e in entries)


@given(bytes_with_newlines, st.lists(st.integers(1, 4)))
def test_lines_are_the_input_again(data: bytes, sizes: list[int]) -> None:
    entries = _cut(Lines(), _pieces(data, sizes))
    assert _as_lines(entries) == data
    assert len(entries) == len(data.split(b"\n")) - (data.endswith(b"\n") or not data)
    marked = [e for e in entries if isinstance(e, Entry)]
    assert all(e.headers == ((b"no-eol", b""),) and e is entries[-1] for e in marked)
    assert bool(marked) == bool(data and not data.endswith(b"\n"))


@given(st.binary(max_size=40), st.lists(st.integers(1, 9)), st.integers(1, 7))
def test_pieces_are_the_input_again_in_equal_sizes(
    data: bytes, sizes: list[int], entry_bytes: int
) -> None:
    entries = _cut(Pieces(entry_bytes), _pieces(data, sizes))
    assert b"".join(entries) == data
    assert [len(e) for e in entries[:-1]] == [entry_bytes] * (len(entries) - 1 if entries else 0)


def test_a_line_too_long_for_an_entry_is_refused_with_its_number() -> None:
    cutter = make_cutter(Format.LINES, 1)
    assert cutter.cut(b"one\n") == [b"one"]
    for _ in range(64):
        assert cutter.cut(bytes(1 << 20)) == []
    with pytest.raises(InvalidRequest, match=r"line 2 is longer than 64 MiB.*--format raw"):
        cutter.cut(b"x")


def test_a_line_of_just_64_mib_is_an_entry() -> None:
    cutter = Lines()
    for _ in range(64):
        assert cutter.cut(bytes(1 << 20)) == []
    (line,) = cutter.cut(b"\n")
    assert len(line) == 64 << 20


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"payload": "a\\u00e9"}', Entry("aé".encode())),
        (b'{"payload_base64": "/wA="}', Entry(b"\xff\0")),
        (
            b'{"seq": 5, "payload": "", "headers": [["k", "v"], ["k", ""]], "timestamp_us": 7}',
            Entry(b"", headers=[("k", "v"), ("k", "")], timestamp_us=7),
        ),
        (
            b'{"payload": "x", "headers_base64": [["/w==", "AA=="]]}',
            Entry(b"x", headers=[(b"\xff", b"\0")]),
        ),
    ],
)
def test_entry_of_a_line_of_json(line: bytes, expected: Entry) -> None:
    assert entry_from_json(line, 1) == expected


@pytest.mark.parametrize(
    "line",
    [
        b"{", b"[]", b"3", b"{}", b'{"payload": 3}', b'{"payload": "a", "payload_base64": "YQ=="}',
        b'{"payload_base64": "!"}', b'{"payload_base64": 3}', b'{"payload": "a", "paylod": "b"}',
        b'{"payload": "a", "headers": {"a": 1}}', b'{"payload": "a", "headers": [["a"]]}',
        b'{"payload": "a", "headers": [["a", 1]]}', b'{"payload": "a", "timestamp_us": -1}',
        b'{"payload": "a", "timestamp_us": "now"}', b'{"payload": "a", "timestamp_us": 1.5}',
        b'{"payload": "a", "timestamp_us": true}', b'{"payload": "a", "headers": 1}',
        b'{"payload": "a", "headers": [], "headers_base64": []}', b"\xff",
    ],
)  # fmt: skip
def test_bad_json_is_refused_with_the_line_and_what_is_needed(line: bytes) -> None:
    cutter = JsonLines()
    with pytest.raises(InvalidRequest, match=r"line 3 is no entry as JSON: .*--format lines"):
        cutter.cut(b'{"payload": "1"}\n\n' + line + b"\n")


def test_jsonl_takes_a_last_line_without_newline_and_skips_empty_ones() -> None:
    text = "\n".join(json.dumps({"payload": p}) for p in ("a", "b"))
    found = _cut(JsonLines(), [b"\n", text.encode()])
    assert [(e.payload, e.headers) for e in found] == [(b"a", ()), (b"b", ())]
