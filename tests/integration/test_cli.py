"""The installed command as a process: pipes, signals, kills, permissions, another version's store."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import xxhash

from woodpecker.codec import keys

SRC = Path(__file__).resolve().parents[2] / "src"
MAIN = [sys.executable, "-c", "from woodpecker.cli.main import main; main()"]
TIMEOUT_S = 60


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    keep = {
        k: v for k, v in os.environ.items() if not k.startswith(("WOODPECKER_", "AWS_", "XDG_"))
    }
    home = tmp_path / "home"
    home.mkdir()
    return {
        **keep,
        "HOME": str(home),
        "PYTHONPATH": str(SRC),
        "WOODPECKER_STORE": str(tmp_path / "store"),
    }


def _run(env, *args: str, stdin: bytes | None = None, **more) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*MAIN, *args],
        env=env,
        input=stdin,
        capture_output=True,
        check=False,
        timeout=TIMEOUT_S,
        **more,
    )


def _ok(env, *args: str, stdin: bytes | None = None) -> bytes:
    done = _run(env, *args, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    return done.stdout


def _fails(env, code: int, *args: str, stdin: bytes | None = None) -> str:
    done = _run(env, *args, stdin=stdin)
    assert done.returncode == code, done.stderr.decode()
    assert done.stderr.count(b"\n") == 1, done.stderr.decode()
    return done.stderr.decode()


def _start(env, *args: str, **more) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*MAIN, *args], env=env, stderr=subprocess.PIPE, **more)


def _end(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    if process.poll() is not None and process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdin = None
    try:
        _, stderr = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    return process.returncode, stderr


def test_a_pipe_through_a_log_gives_the_same_bytes(env) -> None:
    data = bytes(range(256)) * 4000 + b"\nlast line"
    _ok(env, "log", "create", "x")
    out = _ok(env, "append", "x", stdin=data)
    assert out.startswith(b"%d entries appended to x: seq 0 .. " % (data.count(b"\n") + 1))
    assert _ok(env, "read", "x") == data
    assert _ok(env, "append", "x", "-", stdin=b"") == (
        b"nothing to append to x; its next seq is %d\n" % (data.count(b"\n") + 1)
    )


def test_a_reader_that_goes_away_is_no_error(env) -> None:
    _ok(env, "log", "create", "x")
    _ok(env, "append", "x", stdin=b"%0100d\n" % 7 * 200_000)
    for form in ("lines", "jsonl", "hex"):
        process = _start(env, "read", "x", "--format", form, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert _end(process) == (0, b"")


def test_ctrl_c_ends_a_follower_cleanly(env) -> None:
    _ok(env, "log", "create", "x")
    _ok(env, "append", "x", stdin=b"0\n")
    process = _start(env, "read", "x", "--follow", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"0\n", "what is there comes out at once"
    process.send_signal(signal.SIGINT)
    assert _end(process) == (130, b"")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_an_append_and_what_it_says_is_there(env, number: int, code: int) -> None:
    _ok(env, "log", "create", "x")
    process = _start(env, "append", "x", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"0\n1\n2")
    process.stdin.flush()
    _wait_for_tail(env, "x", 2)
    process.send_signal(number)
    process.wait(TIMEOUT_S)  # the input is still open: a silent pipe must not hold it
    returncode, stderr = _end(process)
    assert returncode == code
    assert stderr == b"woodpecker: stopped; appended so far: 2 entries, seq 0 .. 1\n"
    assert _ok(env, "read", "x") == b"0\n1\n"
    found = json.loads(_ok(env, "-o", "json", "log", "describe", "x"))
    assert found["segments"][-1]["state"] == "closed", "the writer closed in good order"


def test_a_killed_append_goes_on_by_its_producer(env) -> None:
    data = b"".join(b"%01023d\n" % number for number in range(8 << 10))  # eight batches
    _ok(env, "log", "create", "x")
    process = _start(
        env, "append", "x", "--producer", "p", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(data[: 3 << 20])
    process.stdin.flush()
    _wait_for_tail(env, "x", 3 << 10)
    process.kill()
    assert _end(process)[0] == -signal.SIGKILL
    done = json.loads(_ok(env, "-o", "json", "append", "x", "--producer", "p", stdin=data))
    assert done["skipped_batches"] == 3
    assert _ok(env, "read", "x") == data


def _wait_for_tail(env, name: str, tail: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        if json.loads(_ok(env, "-o", "json", "log", "describe", name))["tail"] >= tail:
            return
    raise AssertionError(f"no {tail} entries after {TIMEOUT_S} s")


def test_a_writer_that_is_taken_over_says_so(env) -> None:
    _ok(env, "log", "create", "x")
    first = _start(env, "append", "x", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdin is not None
    first.stdin.write(b"0\n")
    first.stdin.flush()
    _wait_for_tail(env, "x", 1)
    _ok(env, "append", "x", stdin=b"1\n")
    first.stdin.write(b"late\n")
    code, stderr = _end(first)
    assert code == 7
    assert stderr.startswith(b"woodpecker: fenced: ")
    assert b"appended so far: 1 entries, seq 0 .. 0" in stderr
    assert _ok(env, "read", "x") == b"0\n1\n"


def test_debug_shows_the_trace(env) -> None:
    done = _run(env, "--debug", "read", "none")
    assert done.returncode == 4
    assert b"Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(b"woodpecker: not_found: ")


def test_usage_errors_are_2(env) -> None:
    for args in (("append",), ("read", "x", "--limit", "-1"), ("log", "trim", "x"), ("nothing",)):
        done = _run(env, *args)
        assert done.returncode == 2, args
        assert b"Usage" in done.stderr


def test_completion_knows_the_commands(env) -> None:
    asked = {
        **env,
        "_WOODPECKER_COMPLETE": "complete_bash",
        "COMP_WORDS": "woodpecker lo",
        "COMP_CWORD": "1",
    }
    assert _run(asked).stdout.split() == [b"log", b"logstore"]


def test_reading_works_where_writing_does_not(env, tmp_path: Path) -> None:
    _ok(env, "log", "create", "x")
    _ok(env, "append", "x", stdin=b"0\n")
    read_only = {**env, "WOODPECKER_READ_ONLY": "true"}
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*") if p.is_file()}
    assert _ok(read_only, "read", "x") == b"0\n"
    assert "read_only is set" in _fails(read_only, 3, "append", "x", stdin=b"1\n")
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*") if p.is_file()}
    assert {p for p in after if "sqlite-" not in p.name} == {
        p for p in before if "sqlite-" not in p.name
    }


def _of_format_999(record: bytes) -> bytes:
    """A sound record whose format nobody here knows."""
    head, digest, value = re.split(rb'([0-9a-f]{32})(?=","value":)', record)
    head = head.replace(b'"format":1', b'"format":999')
    content = value.removeprefix(b'","value":').removesuffix(b"}\n")
    assert xxhash.xxh3_128_hexdigest(head.replace(b"999", b"1") + content) == digest.decode()
    return head + xxhash.xxh3_128_hexdigest(head + content).encode() + value


def test_a_store_of_a_newer_version_is_left_alone(env, tmp_path: Path) -> None:
    _ok(env, "log", "create", "x")
    marker = tmp_path / "store" / "objects" / keys.STORE_MARKER
    newer = _of_format_999(marker.read_bytes())
    marker.chmod(0o600)
    marker.write_bytes(newer)
    said = _fails(env, 3, "append", "x", stdin=b"1\n")
    assert "999" in said
    assert "newer" in said
    assert marker.read_bytes() == newer


def test_two_stores_with_one_root(env, tmp_path: Path) -> None:
    other = {**env, "WOODPECKER_STORE": str(tmp_path / "other")}
    for one in (env, other):
        _ok(one, "log", "create", "x")
        _ok(one, "append", "x", stdin=b"0\n")
    for suffix in ("", "-wal", "-shm"):  # the metadata of one over the objects of the other
        (tmp_path / f"other/metadata.sqlite{suffix}").unlink(missing_ok=True)
        source = tmp_path / f"store/metadata.sqlite{suffix}"
        if source.exists():
            shutil.copy(source, tmp_path / f"other/metadata.sqlite{suffix}")
    assert "two stores with one root" in _fails(other, 3, "append", "x", stdin=b"1\n")
    assert _ok(env, "read", "x") == b"0\n"


def test_objects_whose_metadata_is_elsewhere(env, tmp_path: Path) -> None:
    _ok(env, "log", "create", "x")
    for path in (tmp_path / "store").glob("metadata.sqlite*"):
        path.unlink()
    said = _fails(env, 3, "log", "create", "y")
    assert "pass the metadata= that the store was made with" in said


def test_the_sizes_that_cannot_be(env, tmp_path: Path) -> None:
    _ok(env, "log", "create", "x")
    big = tmp_path / "big"
    with big.open("wb") as out:
        out.truncate((64 << 20) + 1)
    assert "longer than 64 MiB" in _fails(env, 3, "append", "x", str(big))
    _ok(env, "append", "x", str(big), "--format", "raw", "--entry-bytes", str(64 << 20))
    done = _run(env, "read", "x", "--format", "raw")
    assert done.stdout == bytes((64 << 20) + 1)
