"""Settings: where they come from, which one wins, and what is refused at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from woodpecker.config import SETTINGS, Config, load
from woodpecker.core.options import BOUNDS
from woodpecker.errors import InvalidRequest


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "cwd").mkdir()
    return tmp_path


def _load(home: Path, flags=None, **environ: str) -> Config:
    return load(flags or {}, {"HOME": str(home), **environ}, home / "cwd")


def _source(config: Config, name: str) -> str:
    return next(chosen.source for setting, chosen in config if setting.name == name)


def test_without_anything_the_store_is_in_the_data_folder(home: Path) -> None:
    assert _load(home)["store"] == (home / ".local/share/woodpecker").as_uri()
    data = _load(home, XDG_DATA_HOME=str(home / "d"))
    assert data["store"] == (home / "d/woodpecker").as_uri()
    assert _load(home, XDG_DATA_HOME="relative")["store"] == _load(home)["store"]
    assert _load(home).log_options() == {}


def test_flag_wins_over_environment_over_file_over_default(home: Path) -> None:
    (home / "cwd/woodpecker.toml").write_text('output = "json"\nstore = "/from-file"\n')
    assert _load(home)["store"] == "/from-file"
    assert _source(_load(home), "store") == str(home / "cwd/woodpecker.toml")
    config = _load(home, WOODPECKER_STORE="/from-env")
    assert (config["store"], _source(config, "store")) == ("/from-env", "WOODPECKER_STORE")
    config = _load(home, {"store": "/from-flag", "output": None}, WOODPECKER_STORE="/from-env")
    assert (config["store"], _source(config, "store")) == ("/from-flag", "flag")
    assert config["output"] == "json"


def test_the_nearest_file_counts_and_a_named_one_alone(home: Path) -> None:
    user = home / ".config/woodpecker"
    user.mkdir(parents=True)
    (user / "woodpecker.toml").write_text('store = "/user"')
    assert _load(home)["store"] == "/user"
    (home / "cwd/woodpecker.toml").write_text('store = "/here"')
    assert _load(home)["store"] == "/here"
    (home / "other.toml").write_text("read_only = true")
    config = _load(home, WOODPECKER_CONFIG=str(home / "other.toml"))
    assert (config["read_only"], _source(config, "store")) == (True, "default")
    with pytest.raises(InvalidRequest, match="there is no such file"):
        _load(home, WOODPECKER_CONFIG=str(home / "none.toml"))


def test_options_for_new_logs(home: Path) -> None:
    (home / "cwd/woodpecker.toml").write_text(
        '[log]\nsegment_max_bytes = 1_000_000\ncompression = "zstd"\n'
    )
    config = _load(home, WOODPECKER_LOG_RETENTION_AGE_S="none", WOODPECKER_LOG_LINGER_MS="5")
    assert config.log_options() == {
        "segment_max_bytes": 1_000_000,
        "compression": "zstd",
        "retention_age_s": None,
        "linger_ms": 5,
    }


def test_every_log_option_is_a_setting_with_bounds() -> None:
    assert {f"log.{name}" for name in BOUNDS} == {n for n in SETTINGS if n.startswith("log.")}
    assert all(setting.bounds for name, setting in SETTINGS.items() if name.startswith("log."))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stor = '/x'", "unknown setting 'stor': did you mean 'store'"),
        ("[log]\nlinger = 1", "unknown setting 'log.linger': did you mean 'log.linger_ms'"),
        ("[log]\nlinger_ms = -1", "linger_ms=-1: must be within"),
        ("[log]\nlinger_ms = '1'\nmode = 'quick'", "mode='quick': must be one of"),
        ("read_only = 'maybe'", "read_only='maybe': must be true or false"),
        ("output = 'xml'", "output='xml': must be one of table, json"),
        ("store = 3", "store=3: must be text"),
        ("log = 3", "unknown setting 'log'"),
        ("store = ", "cannot be read as TOML"),
        ("store = '/a'\nstore = '/b'", "cannot be read as TOML"),
    ],
)
def test_a_bad_file_is_refused_by_name(home: Path, text: str, said: str) -> None:
    path = home / "cwd/woodpecker.toml"
    path.write_text(text)
    with pytest.raises(InvalidRequest) as caught:
        _load(home)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_unknown_variable_is_refused_with_the_nearest_name(home: Path) -> None:
    with pytest.raises(
        InvalidRequest, match=r"WOODPECKER_STOR in .*did you mean 'WOODPECKER_STORE'"
    ):
        _load(home, WOODPECKER_STOR="/x")
    with pytest.raises(InvalidRequest, match=r"WOODPECKER_LOG_LINGER_MS: .*must be an integer"):
        _load(home, WOODPECKER_LOG_LINGER_MS="soon")
    _load(home, WOODPECKER_ETCD_USER="me", WOODPECKER_STORE="", PATH="/bin")


def test_metadata_of_one_store_never_meets_another(home: Path) -> None:
    """Else the empty directory named by the flag would become part of the store in the file."""
    (home / "cwd/woodpecker.toml").write_text(
        'store = "s3://b/p"\nmetadata = "etcd://h:1/p"\nbuffer = "file:///fast"\n'
    )
    assert _load(home)["metadata"] == "etcd://h:1/p"
    config = _load(home, {"store": "/tmp/other"})
    assert (config["metadata"], config["buffer"]) == (None, None)
    assert "belongs to the store named there" in _source(config, "metadata")
    config = _load(home, {"store": "/tmp/other", "metadata": "etcd://h:1/q"})
    assert config["metadata"] == "etcd://h:1/q"


def test_contradictions_are_refused(home: Path) -> None:
    (home / "cwd/woodpecker.toml").write_text('store = "s3://b/p"\n[log]\nmode = "file"\n')
    with pytest.raises(InvalidRequest, match=r"log.mode=file .* contradicts store=s3://b/p"):
        _load(home)
    assert _load(home, {"buffer": "file:///fast"})["log.mode"] == "file"
    assert _load(home, {"store": "/dir"})["log.mode"] == "file"


def test_settings_of_a_node(home: Path) -> None:
    (home / "cwd/woodpecker.toml").write_text(
        'zone = "a"\n[logstore]\nnode = "n1"\ncache_bytes = 1_000\njournal_max_bytes = "none"\n'
    )
    config = _load(home, {"logstore.cache_bytes": "2000"}, WOODPECKER_LOGSTORE_LISTEN="h:1")
    assert (config["zone"], config["logstore.node"]) == ("a", "n1")
    assert (config["logstore.listen"], config["logstore.cache_bytes"]) == ("h:1", 2000)
    assert config["logstore.journal_max_bytes"] is None
    for bad in ("cache_bytes = -1", "cache_bytes = true", "cache_bytes = 'x'", "listen = 3"):
        (home / "cwd/woodpecker.toml").write_text(f"[logstore]\n{bad}\n")
        with pytest.raises(InvalidRequest, match="must be"):
            _load(home)
    (home / "cwd/woodpecker.toml").write_text("[logstore]\ncash_bytes = 1\n")
    with pytest.raises(InvalidRequest, match=r"did you mean 'logstore\.cache_bytes'"):
        _load(home)
    (home / "cwd/woodpecker.toml").unlink()
    _load(home, WOODPECKER_SECRET="hush")
