"""Settings of the command line: flags, then ``WOODPECKER_*``, then one TOML file, then defaults.

The file is the first of ``$WOODPECKER_CONFIG``, ``./woodpecker.toml`` and
``$XDG_CONFIG_HOME/woodpecker/woodpecker.toml``. Table ``[log]`` (``WOODPECKER_LOG_...``) holds the
options that ``log create`` gives to new logs, table ``[logstore]`` (``WOODPECKER_LOGSTORE_...``) what
``logstore serve`` needs, table ``[streaming]`` what coordinators and streaming nodes do. The library itself reads none of this, but for secrets (``_OF_OTHERS``).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from woodpecker.core.manifest import Options
from woodpecker.core.options import BOUNDS, Bound, make_options
from woodpecker.errors import InvalidRequest
from woodpecker.storage.url import nearest
from woodpecker.streaming.settings import DEFAULTS as STREAM_DEFAULTS

PREFIX, FILE_VARIABLE = "WOODPECKER_", "WOODPECKER_CONFIG"
OUTPUTS = ("table", "json")
TABLES = ("log", "logstore", "streaming")
_OF_OTHERS = {  # read elsewhere: secrets (app.py), the test suite's switch
    FILE_VARIABLE,
    "WOODPECKER_ETCD_USER",
    "WOODPECKER_ETCD_PASSWORD",
    "WOODPECKER_SECRET",
    "WOODPECKER_NO_SKIPS",
}
_OF_ONE_STORE = ("metadata", "buffer")  # these belong to the store named beside them

Value = str | int | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting: what it is, and what it may be. With ``high`` it is a whole number."""

    name: str
    text: str
    default: Value = None
    unit: str = ""
    bounds: str = ""
    low: int = 0
    high: int | None = None

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.name.upper().replace(".", "_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The value of a setting and where it comes from; ``rank`` 0 is a flag, 3 the default."""

    value: Value
    source: str
    rank: int


def data_dir(environ: Mapping[str, str]) -> Path:
    """Where logs live when no store is named: ``$XDG_DATA_HOME/woodpecker``."""
    return _xdg(environ, "XDG_DATA_HOME", ".local/share") / "woodpecker"


def _xdg(environ: Mapping[str, str], variable: str, fallback: str) -> Path:
    given = environ.get(variable, "")
    if Path(given).is_absolute():  # the XDG rule: relative ones are ignored
        return Path(given)
    return Path(environ.get("HOME") or Path.home()) / fallback


def _unit(name: str) -> str:
    units = {"_bytes": "bytes", "_ms": "ms", "_s": "s"}
    return next((unit for end, unit in units.items() if name.endswith(end)), "")


def bounds_text(bound: Bound) -> str:
    """What a log option may be, for people."""
    numbers = f"{bound.low} .. {bound.high}" + (
        f" in steps of {bound.step}" if bound.step > 1 else ""
    )
    text = "name,name" if bound.is_list else ", ".join(bound.choices) or numbers
    return f"{text}, none" if bound.nullable else text


_PLAIN = (
    Setting(
        name="store", text="URL of the store, a directory, or wp://host:port,host:port of its nodes"
    ),
    Setting(name="metadata", text="URL of another metadata store", bounds="etcd://..."),
    Setting(name="buffer", text="directory for open segments of a bucket", bounds="file://..."),
    Setting(name="read_only", text="never write", default=False, bounds="true, false"),
    Setting(name="output", text="how results are printed", default="table", bounds="table, json"),
    Setting(name="zone", text="zone of this machine: nodes of the same one are read first"),
    Setting(name="secret_file", text="file with the secret that nodes and clients share"),
    Setting(name="tls_ca", text="PEM file: who signs the nodes' certificates; turns TLS on"),
    Setting(name="tls_cert", text="PEM file: certificate of this node or client"),
    Setting(name="tls_key", text="PEM file: its private key"),
)


def _number(name: str, text: str, default: int | None, low: int, high: int) -> Setting:
    return Setting(
        name=name, text=text, default=default, unit=_unit(name), low=low, high=high,
        bounds=f"{low} .. {high}" + ("" if default is not None else ", none"),
    )  # fmt: skip


_LOGSTORE = (
    Setting(name="logstore.node", text="name of the node, for ever"),
    Setting(name="logstore.dir", text="directory of its journal, on a local disk"),
    Setting(
        name="logstore.listen",
        text="where it listens",
        default="127.0.0.1:7100",
        bounds="HOST:PORT",
    ),
    Setting(
        name="logstore.advertise",
        text="where others reach it (default: listen)",
        bounds="HOST:PORT",
    ),
    Setting(name="logstore.http", text="where metrics and health are served", bounds="HOST:PORT"),
    Setting(name="logstore.group", text="resource group: logs can be kept to one"),
    _number(
        "logstore.journal_file_bytes", "size of a journal file; the largest block is a little less",
        256 << 20, 1 << 20, 4 << 30,
    ),
    _number(
        "logstore.journal_max_bytes", "room for the journal: at least four files, none: the disk",
        None, 4 << 20, 1 << 50,
    ),
    _number("logstore.keep_free_bytes", "of the disk, never used", 64 << 20, 0, 1 << 50),
    _number(
        "logstore.soft_full_percent", "of that room in use: seal early, prefer other nodes", 70, 1, 98
    ),
    _number("logstore.hard_full_percent", "of that room in use: refuse blocks", 85, 2, 99),
    _number("logstore.queue_max_bytes", "blocks that wait for the disk", 64 << 20, 1 << 20, 8 << 30),
    _number("logstore.cache_bytes", "newest blocks in memory for readers", 64 << 20, 0, 64 << 30),
)  # fmt: skip

_STREAMING = (
    Setting(
        name="streaming.address",
        text="nodes or coordinators that commands ask (default: those on record in the store)",
        bounds="HOST:PORT,HOST:PORT",
    ),
    Setting(name="streaming.node", text="name of a streaming node, for ever"),
    Setting(
        name="streaming.listen",
        text="where a coordinator or node listens",
        default="127.0.0.1:7300",
        bounds="HOST:PORT",
    ),
    Setting(
        name="streaming.advertise",
        text="where others reach it (default: listen)",
        bounds="HOST:PORT",
    ),
    Setting(name="streaming.http", text="where metrics and health are served", bounds="HOST:PORT"),
    Setting(
        name="streaming.mode",
        text="mode of the logs of new pchannels (default: the store's)",
        bounds=", ".join(BOUNDS["mode"].choices),
    ),
    _number(
        "streaming.pchannels", "made in a new store; more can be added, none removed",
        STREAM_DEFAULTS.pchannels, 1, 4096,
    ),
    _number(
        "streaming.session_ttl_ms", "a coordinator or node not heard of for so long is gone",
        STREAM_DEFAULTS.session_ttl_ms, 500, 600_000,
    ),
    _number(
        "streaming.beat_ms", "between signs of life: below a third of session_ttl_ms",
        STREAM_DEFAULTS.beat_ms, 100, 200_000,
    ),
    _number(
        "streaming.tail_bytes", "newest messages that a node keeps in memory for readers",
        STREAM_DEFAULTS.tail_bytes, 1 << 20, 1 << 40,
    ),
)  # fmt: skip


def _settings() -> dict[str, Setting]:
    defaults = Options()
    options = [
        Setting(
            name=f"log.{name}",
            text=bound.text,
            default=None if name == "mode" else getattr(defaults, name),
            unit=_unit(name),
            bounds=bounds_text(bound),
        )
        for name, bound in BOUNDS.items()
    ]
    return {setting.name: setting for setting in (*_PLAIN, *options, *_LOGSTORE, *_STREAMING)}


SETTINGS = _settings()


class Config:
    """All settings as chosen. ``file`` is the TOML file that was read, if one was."""

    def __init__(self, chosen: dict[str, Chosen], file: Path | None) -> None:
        self._chosen = chosen
        self.file = file

    def __getitem__(self, name: str) -> Value:
        return self._chosen[name].value

    def __iter__(self) -> Iterator[tuple[Setting, Chosen]]:
        return ((SETTINGS[name], chosen) for name, chosen in self._chosen.items())

    def source(self, name: str) -> str:
        """Where a setting comes from; "default" if from nowhere."""
        return self._chosen[name].source

    def text(self, name: str) -> str | None:
        """A setting that is text or not set."""
        value = self[name]
        return None if value is None else str(value)

    def log_options(self) -> dict[str, Value]:
        """Options for new logs that were set anywhere but by default."""
        return {
            name: chosen.value
            for name in BOUNDS
            if (chosen := self._chosen[f"log.{name}"]).source != "default"
        }


def load(
    flags: Mapping[str, Value], environ: Mapping[str, str] = os.environ, cwd: Path | None = None
) -> Config:
    """Put the settings together. ``flags``: by setting name; None means not given.

    Raises: InvalidRequest: unknown name (with the nearest valid one), bad value, unreadable file,
    or settings that contradict each other.
    """
    file = _find_file(environ, cwd or Path.cwd())
    chosen = {
        name: Chosen(value=setting.default, source="default", rank=3)
        for name, setting in SETTINGS.items()
    }
    home = Chosen(value=data_dir(environ).as_uri(), source="default", rank=3)
    chosen["store"] = home
    if file is not None:
        chosen.update(_from_file(file))
    chosen.update(_from_environment(environ))
    chosen.update(
        {
            name: Chosen(value=_checked(name, value, "flag"), source="flag", rank=0)
            for name, value in flags.items()
            if value is not None
        }
    )
    _drop_strangers(chosen)
    _check_together(chosen)
    return Config(chosen, file)


def _find_file(environ: Mapping[str, str], cwd: Path) -> Path | None:
    named = environ.get(FILE_VARIABLE)
    if named:
        path = cwd / Path(named).expanduser()
        if not os.path.isfile(path):  # noqa: PTH113  one that may not be looked at is none
            raise InvalidRequest(f"{FILE_VARIABLE}={named}: there is no such file")
        return path
    user = _xdg(environ, "XDG_CONFIG_HOME", ".config") / "woodpecker"
    places = (cwd / "woodpecker.toml", user / "woodpecker.toml")
    return next((path for path in places if os.path.isfile(path)), None)  # noqa: PTH113


def _from_file(path: Path) -> dict[str, Chosen]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{path} cannot be read as TOML: {error}") from None
    found: dict[str, Any] = {}
    for name, value in tables.items():
        if name in TABLES and isinstance(value, dict):
            found |= {f"{name}.{option}": setting for option, setting in value.items()}
        else:
            found[name] = value
    return {
        name: Chosen(value=_checked(name, value, str(path)), source=str(path), rank=2)
        for name, value in found.items()
    }


def _from_environment(environ: Mapping[str, str]) -> dict[str, Chosen]:
    by_variable = {setting.variable: name for name, setting in SETTINGS.items()}
    found = {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in _OF_OTHERS or not environ[variable]:
            continue
        if variable not in by_variable:
            raise InvalidRequest(
                f"unknown setting {variable} in the environment: {nearest(variable, by_variable)}"
            )
        name = by_variable[variable]
        value = _checked(name, environ[variable], variable)
        found[name] = Chosen(value=value, source=variable, rank=1)
    return found


def _checked(name: str, value: object, source: str) -> Value:
    """The value in its right type; text is read as numbers and booleans where those are meant."""
    if name not in SETTINGS:
        raise InvalidRequest(f"{source}: unknown setting {name!r}: {nearest(name, SETTINGS)}")
    if name.startswith("log."):
        return _log_option(name, value, source)
    if name == "read_only":
        known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if str(value).lower() not in known:
            raise InvalidRequest(f"{source}: {name}={value!r}: must be true or false")
        return known[str(value).lower()]
    if SETTINGS[name].high is not None:
        return _whole_number(SETTINGS[name], value, source)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{source}: {name}={value!r}: must be text")
    if name == "output" and value not in OUTPUTS:
        raise InvalidRequest(f"{source}: output={value!r}: must be one of {', '.join(OUTPUTS)}")
    return value


def _whole_number(setting: Setting, value: object, source: str) -> int | None:
    if setting.default is None and str(value).lower() == "none":
        return None
    try:
        number = None if isinstance(value, bool) else int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        number = None
    if number is None or not setting.low <= number <= (setting.high or 0):
        raise InvalidRequest(
            f"{source}: {setting.name}={value!r}: must be a whole number within {setting.bounds}"
        )
    return int(number)


def _log_option(name: str, value: object, source: str) -> Value:
    option = name.removeprefix("log.")
    try:
        made = make_options(Options(), {option: parse_option(option, value)})
    except InvalidRequest as error:
        raise InvalidRequest(f"{source}: {error}") from None
    chosen: Value = getattr(made, option)
    return chosen


def parse_option(name: str, value: object) -> Value:
    """A log option from text: numbers as numbers (``1_000_000`` too), ``none`` as no limit."""
    bound = BOUNDS.get(name)
    if bound is None or bound.choices or not isinstance(value, str):
        return cast("Value", value)  # make_options judges it
    if bound.nullable and value.lower() == "none":
        return None
    if bound.is_list:
        return value
    try:
        return int(value)
    except ValueError:
        return value


def _drop_strangers(chosen: dict[str, Chosen]) -> None:
    """A metadata or buffer setting must not meet a store that was named closer to the user."""
    store = chosen["store"]
    for name in _OF_ONE_STORE:
        other = chosen[name]
        if other.value is not None and other.rank > store.rank:
            ignored = f"default ({other.source} belongs to the store named there)"
            chosen[name] = Chosen(value=None, source=ignored, rank=3)


def _check_together(chosen: dict[str, Chosen]) -> None:
    store, buffer = str(chosen["store"].value), chosen["buffer"].value
    has_scheme = "://" in store and not store.startswith("file://")
    mode = chosen["log.mode"]
    if mode.value == "file" and has_scheme and buffer is None:
        raise InvalidRequest(
            f"log.mode=file ({mode.source}) contradicts store={store} ({chosen['store'].source}): a "
            "bucket needs buffer=file:///dir for open segments"
        )
