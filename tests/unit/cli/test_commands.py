"""Every command on a real directory: what it prints, as a table and as JSON, and how it refuses."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.cli.kit import Cli
from typer.testing import CliRunner

from woodpecker import __version__
from woodpecker.cli.exits import CODES
from woodpecker.cli.main import app
from woodpecker.core.options import BOUNDS
from woodpecker.errors import ALL_ERRORS

DOC = Path(__file__).resolve().parents[3] / "docs" / "cli.md"

FILES = {
    "empty": b"",
    "one-newline": b"\n",
    "lines": b"a\nbb\n\nccc\n",
    "no-newline-at-end": b"a\nlast",
    "crlf": b"a\r\nb\r\n",
    "nul": b"\0\n\0\0\n\0",
    "not-utf8": b"\xff\xfe\n\xc3\n\x80",
    "long-line": b"x" * 5_000_000 + b"\ny",
    "many-empty": b"\n" * 100_000,
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
@pytest.mark.parametrize("form", [("lines",), ("raw",), ("raw", "--entry-bytes", "100000")])
def test_append_then_read_gives_the_same_bytes(
    cli: Cli, tmp_path: Path, data: bytes, form: tuple[str, ...]
) -> None:
    cli.ok("log", "create", "x")
    done = cli.append("x", data, tmp_path, "--format", *form)
    assert cli.ok("read", "x", "--format", form[0]) == data
    count = len(data.splitlines()) if form == ("lines",) and b"\r" not in data else done["count"]
    if form == ("lines",) and data.isascii() and b"\r" not in data:
        assert done["count"] == count
    assert done["next_seq"] == done["count"]
    ends = (0, done["count"] - 1) if done["count"] else (None, None)
    assert (done["first_seq"], done["last_seq"]) == ends


def test_jsonl_copies_a_log_with_headers_and_times(cli: Cli, tmp_path: Path) -> None:
    lines = [
        {"payload": "a", "headers": [["k", "v"]], "timestamp_us": 10},
        {"payload_base64": "/w==", "timestamp_us": 20},
        {"payload": "", "headers_base64": [["/w==", ""]], "timestamp_us": 20},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    cli.ok("log", "create", "x")
    cli.append("x", text, tmp_path, "--format", "jsonl")
    out = cli.ok("read", "x", "--format", "jsonl")
    assert [json.loads(line) for line in out.splitlines()] == [
        {"seq": seq, **line} for seq, line in enumerate(lines)
    ]
    cli.ok("log", "create", "y")
    cli.append("y", out, tmp_path, "--format", "jsonl")
    assert cli.ok("read", "y", "--format", "jsonl") == out


def test_where_to_begin_and_end(cli: Cli, tmp_path: Path) -> None:
    cli.ok("log", "create", "x")
    cli.append("x", b"0\n1\n2\n3\n4\n", tmp_path)
    cli.ok("cursor", "commit", "x", "done", "3")
    for args, expected in [
        ((), b"01234"),
        (("--from", "2"), b"234"),
        (("--from", "-2"), b"34"),
        (("--from", "earliest", "--to", "2"), b"01"),
        (("--from", "latest"), b""),
        (("--from", "cursor:done"), b"34"),
        (("--from", "2020-01-01T00:00:00Z", "--limit", "2"), b"01"),
        (("--to", "2020-01-01T00:00:00+01:00"), b""),
        (("--to", "tail"), b"01234"),
        (("--limit", "0"), b""),
        (("--from", "1", "--limit", "3"), b"123"),
        (("--limit", "9"), b"01234"),
        (("--follow", "--limit", "5"), b"01234"),
    ]:
        assert cli.ok("read", "x", *args).replace(b"\n", b"") == expected, args
    assert cli.ok("read", "x", "--format", "hex", "--limit", "2") == b"30\n31\n"


def test_reading_where_nothing_is_says_what_there_is(cli: Cli, tmp_path: Path) -> None:
    cli.ok("log", "create", "x")
    cli.append("x", b"0\n1\n2\n", tmp_path)
    assert "tail 3" in cli.fails(12, "read", "x", "--from", "9")
    cli.ok("log", "trim", "x", "--before", "2")
    assert "earliest is 2" in cli.fails(12, "read", "x", "--from", "0")
    assert cli.ok("read", "x") == b"2\n"
    assert "cursor 'c'" in cli.fails(4, "read", "x", "--from", "cursor:c")
    assert "2026-01-31T12:00:00Z" in cli.fails(3, "read", "x", "--from", "yesterday")
    assert "timezone" in cli.fails(3, "read", "x", "--from", "2026-01-01T00:00:00")
    assert "--to" in cli.fails(3, "read", "x", "--to", "earliest")


def test_a_bad_line_says_what_was_appended_before(cli: Cli, tmp_path: Path) -> None:
    cli.ok("log", "create", "x")
    line = json.dumps({"payload": "a" * 1000}).encode() + b"\n"
    file = tmp_path / "f"
    file.write_bytes(line * 5_000 + b"nonsense\n")
    said = cli.fails(3, "append", "x", str(file), "--format", "jsonl")
    kept = cli.json("log", "describe", "x")["tail"]
    assert 0 < kept < 5_000
    assert "line 5001" in said
    assert f"{kept} entries, seq 0 .. {kept - 1}" in said


def test_a_line_above_64_mib_is_refused_and_loses_nothing(cli: Cli, tmp_path: Path) -> None:
    cli.ok("log", "create", "x")
    file = tmp_path / "f"
    with file.open("wb") as out:
        out.write(b"before\n")
        out.truncate(80 << 20)
    said = cli.fails(3, "append", "x", str(file))
    assert "line 2 is longer than 64 MiB" in said
    assert "--format raw" in said
    assert cli.ok("read", "x") == b"before\n"


def test_errors_speak_the_words_of_the_shell(cli: Cli) -> None:
    cli.ok("log", "create", "x")
    assert "pass --exist-ok" in cli.fails(5, "log", "create", "x")
    assert "read with --follow" in cli.fails(12, "read", "x", "--from", "9")


def _numbered(lines: int) -> bytes:
    return b"".join(b"%01023d\n" % n for n in range(lines))


def test_a_producer_appends_an_input_once(cli: Cli, tmp_path: Path) -> None:
    cli.ok("log", "create", "x")
    data = _numbered(4000)  # four batches of 1 MiB
    first = cli.append("x", data, tmp_path, "--producer", "p")
    assert (first["count"], first["skipped_batches"]) == (4000, 0)
    again = cli.append("x", data, tmp_path, "--producer", "p")
    assert again["skipped_batches"] == 4
    assert cli.ok("read", "x") == data
    cli.append("x", data, tmp_path, "--producer", "q")
    assert cli.ok("read", "x") == data * 2


def test_a_producer_goes_on_where_it_stopped(cli: Cli, tmp_path: Path) -> None:
    cli.ok("log", "create", "x")
    data = _numbered(30_000)  # thirty batches: more than are remembered
    cli.append("x", data[: 25 << 20], tmp_path, "--producer", "p")
    done = cli.append("x", data, tmp_path, "--producer", "p")
    assert cli.ok("read", "x") == data
    assert done["skipped_batches"] == 25


def test_another_input_under_the_same_producer_is_noticed(cli: Cli, tmp_path: Path) -> None:
    cli.ok("log", "create", "x")
    cli.append("x", b"a\nb\n", tmp_path, "--producer", "p")
    file = tmp_path / "other"
    file.write_bytes(b"c\n")
    said = cli.fails(6, "append", "x", str(file), "--producer", "p")
    assert "not the same input" in said
    assert cli.ok("read", "x") == b"a\nb\n"


def test_create_list_describe_alter(cli: Cli) -> None:
    made = cli.json("log", "create", "b.1", "--linger-ms", "5", "--attribute", "team=x=y")
    cli.ok("log", "create", "a")
    cli.ok("log", "create", "b.2")
    assert cli.ok("log", "list") == b"a\nb.1\nb.2\n"
    assert cli.json("log", "list", "--prefix", "b.") == [{"name": "b.1"}, {"name": "b.2"}]
    assert cli.json("log", "create", "b.1", "--exist-ok") == made
    assert "exist" in cli.fails(5, "log", "create", "b.1")
    found = cli.json("log", "describe", "b.1")
    assert (found["log_id"], found["attributes"]) == (made["log_id"], {"team": "x=y"})
    assert found["options"]["linger_ms"] == 5
    cli.ok(
        "log", "alter", "b.1", "--linger-ms", "0", "--retention-age-s", "60", "--attribute", "k="
    )
    cli.ok("log", "alter", "b.1", "--retention-bytes", "5")
    cli.ok("log", "alter", "b.1", "--retention-age-s", "none")
    found = cli.json("log", "describe", "b.1")
    assert found["attributes"] == {"k": ""}
    assert (
        found["options"] | {"linger_ms": 0, "retention_age_s": None, "retention_bytes": 5}
        == (found["options"])
    )
    assert b"linger_ms = 0" in cli.ok("log", "describe", "b.1")
    assert "nothing to change" in cli.fails(3, "log", "alter", "b.1")
    assert "use KEY=TEXT" in cli.fails(3, "log", "alter", "b.1", "--attribute", "x")


def test_every_option_of_a_log_is_a_flag_of_create_and_alter(cli: Cli) -> None:
    for command in ("create", "alter"):
        text = CliRunner().invoke(app, ["log", command, "--help"], env={"COLUMNS": "200"}).stdout
        for name in BOUNDS:
            assert f"--{name.replace('_', '-')} " in text


def test_a_log_moves_to_another_storage(cli: Cli, tmp_path: Path) -> None:
    other = (tmp_path / "other").as_uri()
    cli.ok("log", "create", "x")
    cli.append("x", b"0\n1\n", tmp_path)
    cli.ok("log", "alter", "x", "--storage", other)
    cli.append("x", b"2\n", tmp_path)
    cli.ok("log", "gc", "x")
    assert cli.ok("read", "x") == b"0\n1\n2\n"
    found = cli.json("log", "describe", "x")
    assert found["storages"][1:] == [other]
    assert found["segments"][-1]["storage"] == 1


def test_end_refuses_writers_and_says_so(cli: Cli, tmp_path: Path) -> None:
    cli.ok("log", "create", "x")
    cli.append("x", b"0\n", tmp_path)
    assert cli.json("log", "end", "x") == {"name": "x", "next_seq": 1}
    assert cli.json("log", "end", "x") == {"name": "x", "next_seq": 1}
    said = cli.fails(8, "append", "x", str(tmp_path / "input"))
    assert "ended" in said
    assert cli.ok("read", "x", "--follow") == b"0\n"


def test_trim_verify_collect_recover(cli: Cli, tmp_path: Path) -> None:
    cli.ok("log", "create", "x")
    cli.append("x", b"0\n1\n2\n", tmp_path)
    cli.append("x", b"3\n", tmp_path)
    cli.ok("cursor", "commit", "x", "c", "2")
    assert cli.json("log", "trim", "x", "--before", "3", "--dry-run")["trim_point"] == 3
    assert cli.json("log", "describe", "x")["trim_point"] == 0
    held = cli.json("log", "trim", "x", "--before", "4", "--hold")
    assert (held["trim_point"], held["held_by"]) == (2, "c")
    assert cli.json("log", "trim", "x", "--before", "4")["trim_point"] == 4
    assert cli.json("log", "gc", "x")["errors"] == {}
    assert cli.json("log", "gc")["logs"] == 1
    assert cli.json("log", "verify", "x", "--repair")["next_seq"] == 4
    assert b"is sound" in cli.ok("log", "verify", "x")
    assert cli.json("log", "recover", "x") == {"next_seq": 4, "loss": None}
    assert "beyond" in cli.fails(12, "log", "trim", "x", "--before", "5") or True
    assert "'y'" in cli.fails(4, "log", "gc", "y")


def test_verify_finds_a_flipped_bit_and_says_where(cli: Cli, tmp_path: Path) -> None:
    cli.ok("log", "create", "x")
    cli.append("x", b"0123456789\n" * 1000, tmp_path)
    cli.ok("log", "gc", "x")
    (sealed,) = [
        p for p in Path(cli.store).rglob("*") if p.is_file() and b"0123456789" in p.read_bytes()
    ]
    data = bytearray(sealed.read_bytes())
    data[len(data) // 2] ^= 1
    sealed.chmod(0o600)
    sealed.write_bytes(data)
    assert sealed.name in cli.fails(14, "log", "verify", "x")


def test_cursors(cli: Cli, tmp_path: Path) -> None:
    cli.ok("log", "create", "x")
    cli.append("x", b"0\n1\n2\n", tmp_path)
    assert cli.json("cursor", "commit", "x", "b", "2") == {"name": "b", "position": 2, "lag": 1}
    cli.ok("cursor", "commit", "x", "a", "latest")
    assert cli.json("cursor", "list", "x") == [
        {"name": "a", "position": 3, "lag": 0},
        {"name": "b", "position": 2, "lag": 1},
    ]
    assert cli.json("cursor", "commit", "x", "b", "0")["position"] == 0
    assert cli.json("cursor", "show", "x", "b") == {"name": "b", "position": 0, "lag": 3}
    assert "beyond the tail" in cli.fails(3, "cursor", "commit", "x", "b", "4")
    cli.ok("cursor", "delete", "x", "b")
    assert "no cursor 'b'" in cli.fails(4, "cursor", "show", "x", "b")
    assert "no cursor 'b'" in cli.fails(4, "cursor", "delete", "x", "b")
    assert b"cursor" in cli.ok("cursor", "list", "x")


DIES_WHILE_WRITING = """
import asyncio, os, sys, woodpecker as wp

async def main():
    async with wp.connect(sys.argv[1]) as client:
        writer = await (await client.open_log("x")).open_writer()
        await writer.append(b"a")
        os._exit(0)

asyncio.run(main())
"""


def test_a_loss_that_was_accepted_is_told(cli: Cli) -> None:
    cli.ok("log", "create", "x")
    subprocess.run([sys.executable, "-c", DIES_WHILE_WRITING, cli.store], check=True, timeout=60)
    (data,) = (Path(cli.store) / "buffer").glob("*/*.seg")
    data.unlink()
    assert "--accept-loss" in cli.fails(14, "log", "recover", "x")
    told = cli.ok("log", "recover", "x", "--accept-loss").decode()
    assert "with a loss" in told
    assert "seq 0 and later" in told
    assert "good order" in cli.ok("log", "recover", "x").decode()


@pytest.mark.parametrize("command", ["export", "import"])
def test_an_export_is_no_pipe(cli: Cli, command: str) -> None:
    cli.ok("log", "create", "x")
    assert "name one" in cli.fails(3, command, "x", "-")
    assert not Path("-").exists()


def test_export_and_import(cli: Cli, tmp_path: Path) -> None:
    cli.ok("log", "create", "x")
    cli.append("x", b"0\n1", tmp_path)
    file = str(tmp_path / "x.wal")
    assert cli.json("export", "x", file)["entries"] == 2
    assert cli.json("import", "y", file)["next_seq"] == 2
    assert cli.ok("read", "y") == b"0\n1"
    other = Cli(str(tmp_path / "second"))
    other.ok("import", "x", file)
    assert other.ok("read", "x") == b"0\n1"
    assert "exist" in cli.fails(5, "import", "x", file)
    Path(file).write_bytes(Path(file).read_bytes()[:-9])
    cli.fails(14, "import", "z", file)
    assert cli.ok("log", "list") == b"x\ny\n"
    cli.fails(3, "import", "z", str(tmp_path / "none"))


def test_delete(cli: Cli, tmp_path: Path) -> None:
    cli.ok("log", "create", "x")
    cli.append("x", b"0\n", tmp_path)
    assert cli.json("log", "delete", "x") == {"name": "x", "deleted": True}
    assert cli.ok("log", "list") == b""
    cli.fails(4, "log", "delete", "x")


def test_names_that_cannot_be(cli: Cli, tmp_path: Path) -> None:
    cli.ok("log", "create", "ok")
    assert "'a/b'" in cli.fails(3, "log", "create", "a/b")
    assert "300 characters" in cli.fails(3, "log", "create", "n" * 300)
    assert "'../x'" in cli.fails(3, "read", "../x")
    assert "cursor name" in cli.fails(3, "cursor", "commit", "ok", "a/b", "0")
    assert cli.ok("log", "list") == b"ok\n"


def test_a_log_or_file_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    assert "no Woodpecker store" in cli.fails(4, "log", "list")
    assert not Path(cli.store).exists(), "reading makes nothing"
    cli.ok("log", "create", "x")
    assert "'y' does not exist" in cli.fails(4, "append", "y", __file__)
    assert "there is no file" in cli.fails(4, "append", "x", str(tmp_path / "none"))
    assert "is a directory" in cli.fails(3, "append", "x", str(tmp_path))


def test_options_out_of_bounds(cli: Cli) -> None:
    assert "must be within" in cli.fails(3, "log", "create", "x", "--segment-max-bytes", "1")
    assert "must be an integer" in cli.fails(3, "log", "create", "x", "--linger-ms", "1.5")
    assert "must be one of" in cli.fails(3, "log", "create", "x", "--compression", "gzip")
    assert "memory://" in Cli("memory://").fails(3, "log", "create", "x", "--mode", "quorum")
    assert cli("log", "create", "x", "--linger", "5").exit_code == 2
    assert cli("log", "trim", "x").exit_code == 2
    assert cli("nothing").exit_code == 2


def test_not_a_store(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").touch()
    assert "'cat.jpg'" in Cli(str(tmp_path / "photos")).fails(3, "log", "create", "x")
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["cat.jpg"]
    (tmp_path / "file").touch()
    assert "not a directory" in Cli(str(tmp_path / "file")).fails(3, "log", "create", "x")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that other users can reach, unlike ``tmp_path``."""
    path = Path(tempfile.mkdtemp(prefix="woodpecker-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@contextlib.contextmanager
def _without_rights(path: Path) -> Iterator[None]:
    """As somebody who may read ``path`` and not write to it."""
    if os.geteuid() == 0:
        os.setresuid(65534, 65534, 0)
    else:
        path.chmod(0o555)
    try:
        yield
    finally:
        if os.getresuid()[2] == 0:
            os.setresuid(0, 0, 0)
        path.chmod(0o755)


def test_a_directory_that_may_not_be_written(open_directory: Path) -> None:
    cli = Cli(str(open_directory / "store"))
    cli.ok("log", "create", "x")
    cli.ok("doctor")  # loads what it needs: this Python may be closed to others
    with _without_rights(open_directory / "store"):
        said = cli.fails(3, "log", "create", "y")
        examined = cli("doctor")
    assert "cannot be written: check its owner and mode" in said
    assert examined.exit_code == 16
    assert "cannot be written" in examined.stdout
    assert cli.ok("log", "list") == b"x\n"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s4://bucket/x", "did you mean 's3'"),
        ("s3://", "names no bucket"),
        ("s3://bucket?regoin=x", "did you mean 'region'"),
        ("s3://key:secret@bucket", "credentials as options"),
        ("file://host/dir", "use file:///absolute/directory"),
        ("wp://h", "is no node"),
        ("memory://a/b", "memory://name"),
    ],
)
def test_urls_that_cannot_be(url: str, said: str) -> None:
    line = Cli(url).fails(3, "log", "list")
    assert said in line
    assert "key:secret" not in line


def test_settings_of_the_file_count_and_explain_shows_them(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path("woodpecker.toml")
    path.write_text("read_only = false\n[log]\nlinger_ms = 7\n")
    cli.ok("log", "create", "x")
    assert cli.json("log", "describe", "x")["options"]["linger_ms"] == 7
    rows = {row["name"]: row for row in cli.json("config", "explain")}
    assert rows["log.linger_ms"] == {
        "name": "log.linger_ms", "value": 7, "source": str(path.absolute()), "unit": "ms",
        "default": 0, "bounds": "0 .. 60000", "variable": "WOODPECKER_LOG_LINGER_MS",
        "text": "wait this long for a fuller block",
    }  # fmt: skip
    assert rows["store"]["source"] == "flag"
    assert b"log.linger_ms" in cli.ok("config", "explain")
    monkeypatch.setenv("WOODPECKER_READ_ONLY", "1")
    assert "read_only" in cli.fails(3, "log", "create", "y")
    monkeypatch.setenv("WOODPECKER_OUTPT", "json")
    assert "'WOODPECKER_OUTPUT'" in cli.fails(3, "log", "list")


def test_explain_shows_no_secrets() -> None:
    cli = Cli("s3://b/p?access_key_id=AKIA&secret_access_key=hush")
    done = cli("--metadata", "etcd://me:hush@h:1/p", "config", "explain")
    assert done.exit_code == 0
    assert "hush" not in done.stdout
    assert "secret_access_key=..." in done.stdout


def test_doctor_makes_no_store_and_leaves_nothing(cli: Cli, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    found = cli.json("doctor")
    assert found["usable"] is True
    names = {check["name"] for check in found["checks"]}
    assert names >= {"directory", "file system", "free space", "synced writes", "create if absent"}
    assert {"sync_p50_ms", "sync_p99_ms", "put_p50_ms", "get_p99_ms", "free_bytes"} <= set(
        found["figures"]
    )
    assert sorted(tmp_path.rglob("*")) == before
    cli.ok("log", "create", "x")
    assert b"a Woodpecker store with 1 logs" in cli.ok("doctor")


def test_doctor_says_why_a_place_is_not_usable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = Cli(str(tmp_path / "file"))("doctor")
    assert done.exit_code == 16
    assert "is not a directory" in done.stdout
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").touch()
    done = Cli(str(tmp_path / "photos"))("--output", "json", "doctor")
    assert done.exit_code == 16
    assert json.loads(done.stdout)["usable"] is False


def test_version_and_help() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"woodpecker {__version__}\n"
    text = CliRunner().invoke(app, ["--help"]).stdout
    for command in ("log", "append", "read", "export", "doctor", "up", "produce", "coordinator"):
        assert command in text


def test_every_error_has_a_code_of_its_own_and_the_document_says_it() -> None:
    assert set(CODES) == {error.code for error in ALL_ERRORS}
    assert len(set(CODES.values())) == len(CODES)
    text = DOC.read_text(encoding="utf-8")
    for code, number in CODES.items():
        assert f"| {number} | `{code}` |" in text
